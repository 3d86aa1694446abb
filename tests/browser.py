"""A headless Chromium for tests: offline, and with what it logs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "HSW_BROWSER"  # set where a browser has to be there, as in .ci/run


def _found() -> tuple[str, str] | None:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    with contextlib.suppress(ImportError):
        import selenium  # noqa: F401

        return (browser, driver) if browser and driver else None
    return None


@contextlib.contextmanager
def chromium(width: int = 1280, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """A browser; the test is skipped without one, unless HSW_BROWSER is set."""
    found = _found()
    if found is None:
        if os.environ.get(REQUIRED):
            raise AssertionError(f"{REQUIRED} is set, and there is no Chromium: make browser")
        pytest.skip("no Chromium: make browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    flags = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")
    flags += ("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},{height}")
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield driver
    finally:
        driver.quit()


def visit(driver: Any, page: Path) -> None:
    driver.get(page.absolute().as_uri())


def complaints(driver: Any) -> list[str]:
    """What was logged to its console: errors, warnings, violations of the page's policy."""
    entries = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [entry["message"] for entry in entries if "willReadFrequently" not in entry["message"]]  # the tests' own


def requests(driver: Any) -> list[str]:
    """What was asked for since the last call, without what is within the page."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]
