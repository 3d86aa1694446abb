"""The page in a browser: it opens from a file, asks for nothing, draws, and can be used by everybody."""

import time
from functools import partial

import pytest

from hsw.report import cli
from tests.analysis.studies import HOSTILE, leave_hostile, leave_large
from tests.browser import chromium, complaints, requests, visit
from tests.runs import ROOT, call, wait_for
from tests.test_report import _replace_line, leave_run

AXE = ROOT / "tests" / "data" / "axe" / "axe.min.js"
BLUE, ORANGE = (0, 96, 168), (194, 78, 0)  # of the first two groups in the light
COUNT = """
const [where, colour] = arguments;
let count = 0;
for (const canvas of document.querySelectorAll(where + " canvas")) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let n = 0; n < data.length; n += 4)
    count += data[n + 3] > 200 && colour.every((part, c) => Math.abs(data[n + c] - part) < 12);
}
return count;
"""


def make(folder, out, *arguments):
    result = call(str(folder), "--format", "html", "--out", str(out), "--reps", "20", *arguments, main=cli)
    assert result.code == 0, result.err
    return out


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for seed in (1, 2):
        leave_run(folder / "study" / f"a-{seed}", seed, 100.0 * seed)
        leave_run(folder / "study" / f"b-{seed}", seed, 120.0, algorithm__lr=0.5)
    return make(folder / "study", folder / "report.html")


def count(driver, where, colour):
    return driver.execute_script(COUNT, where, colour)


def choose(driver, label, value):
    driver.execute_script(
        """const [label, value] = arguments;
        const one = [...document.querySelectorAll(".controls label")].find((l) => l.textContent.startsWith(label));
        const control = one.querySelector("select, input");
        if (control.type === "checkbox") control.click();
        else { control.value = value; control.dispatchEvent(new Event("change")); }""",
        label,
        value,
    )


def findings(driver):
    """axe's serious ones, as the places that they are at."""
    found = driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text()})  # past the page's policy
    assert "exceptionDetails" not in found
    expression = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
        (one) => [one.id, one.impact, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 150))]))"""
    options = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    violations = driver.execute_cdp_cmd("Runtime.evaluate", options)["result"]["value"]
    return [one for one in violations if one[1] in ("serious", "critical")]


def open_all(driver):
    driver.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def test_it_opens_from_a_file_asks_for_nothing_and_draws(browser, study):
    requests(browser)
    visit(browser, study)
    wait_for(lambda: count(browser, "#study-0-curves-0", BLUE) > 200, 5)
    wait_for(lambda: count(browser, "#study-0-profile-0", BLUE) > 200, 5)
    assert count(browser, "#study-0-curves-0", ORANGE) > 200
    assert count(browser, "#study-0-profile-0", ORANGE) > 200
    assert count(browser, ".run", BLUE) == 0
    open_all(browser)
    wait_for(lambda: count(browser, "#run-0-0 [data-metric]", BLUE) > 200, 5)
    assert requests(browser) == [study.as_uri()]
    assert complaints(browser) == []


def test_groups_seeds_axis_smoothing_and_metric_can_be_chosen(browser, study):
    visit(browser, study)
    chart = "#study-0-curves-0"
    wait_for(lambda: count(browser, chart, ORANGE) > 200, 5)
    both = count(browser, chart, ORANGE)
    click = "document.querySelectorAll('#study-0-curves-0 .legend input')[1].click()"
    browser.execute_script(click)
    assert count(browser, chart, ORANGE) == 0 < both
    browser.execute_script(click)
    assert count(browser, chart, ORANGE) == both
    text = lambda: browser.execute_script("return document.querySelector('#study-0-curves-0 .readout').textContent")
    name = lambda: browser.execute_script(
        "return document.querySelector('#study-0-curves-0 [role=img]').getAttribute('aria-label')"
    )
    assert "Smoothing: none" in text()
    choose(browser, "Smoothing", "15")
    assert "running mean over 15 neighbouring points" in text()
    assert "environment steps" in name()
    choose(browser, "Over", "seconds")
    assert "wall time" in name()
    choose(browser, "Metric", "learn/policy_loss")
    assert "learn/policy_loss" in name()
    assert "without intervals" in text()
    assert "ends at 0.1" in name()
    choose(browser, "Metric", "train/episode_return")
    lines = count(browser, chart, BLUE)
    choose(browser, "each seed", None)
    assert browser.execute_script("return document.querySelectorAll('#study-0-curves-0 canvas').length") == 1
    assert count(browser, chart, BLUE) >= lines
    assert complaints(browser) == []


def test_values_and_zoom_by_keyboard_and_mouse(browser, study):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    visit(browser, study)
    wait_for(lambda: count(browser, "#study-0-curves-0", BLUE) > 0, 5)
    place = browser.find_element("css selector", "#study-0-curves-0 [role=img]")
    ends = "const u = document.querySelectorAll('#study-0-curves-0 .u-over'); return u.length"
    assert browser.execute_script(ends) == 1
    place.send_keys(Keys.ARROW_RIGHT)
    spoken = browser.execute_script("return document.getElementById('live').textContent")
    # Half of the way and a little further: the second group's mean is 120 at the end, and straight.
    assert spoken.startswith("At ")
    step = float(spoken.split()[1].replace(",", ""))
    assert 500 < step < 600
    assert abs(float(spoken.rsplit(" ", 1)[1]) - 120 * step / 1000) < 1
    at = browser.execute_script("return document.querySelector('#study-0-curves-0 .readout').textContent")
    assert "steps" in at
    place.send_keys("+")
    place.send_keys(Keys.END)
    nearer = browser.execute_script("return document.getElementById('live').textContent")
    assert 550 < float(nearer.split()[1].replace(",", "")) < 900
    place.send_keys("0")
    place.send_keys(Keys.END)
    farther = browser.execute_script("return document.getElementById('live').textContent")
    assert float(farther.split()[1].replace(",", "")) > 950
    browser.execute_script("document.querySelector('#study-0-curves-0').scrollIntoView()")
    over = browser.find_element("css selector", "#study-0-curves-0 .u-over")
    ActionChains(browser).move_to_element_with_offset(over, 50, 0).perform()
    assert browser.execute_script("return document.querySelector('#study-0-curves-0 output').textContent") != ""
    assert complaints(browser) == []


def test_links_lead_into_what_is_folded_and_commands_are_copied(browser, study):
    visit(browser, study)
    browser.execute_script("location.hash = '#run-0-2'")
    wait_for(lambda: browser.execute_script("return document.getElementById('run-0-2').open"), 5)
    browser.execute_script("document.querySelector('[data-copy]').click()")
    told = "return document.getElementById('live').textContent"
    wait_for(lambda: browser.execute_script(told) in ("Copied", "Selected"), 5)


def test_a_curve_of_one_point_is_a_point(browser, tmp_path):
    for seed in (1, 2):
        run = leave_run(tmp_path / "study" / str(seed), seed, rows=1)
        _replace_line(run, 0, '{"step": 1000, "time": 1.0, "train/episode_return": 7.0}')
    visit(browser, make(tmp_path / "study", tmp_path / "report.html"))
    wait_for(lambda: count(browser, "#study-0-curves-0", BLUE) > 20, 5)
    assert count(browser, "#study-0-curves-0", BLUE) < 200
    open_all(browser)
    wait_for(lambda: count(browser, "#run-0-0 [data-metric='train/episode_return']", BLUE) > 10, 5)


def test_without_scripts_the_curves_are_a_picture(browser, study):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, study)
        still = browser.find_element("css selector", "img.still")
        assert still.is_displayed()
        assert still.size["height"] > 100
        assert not browser.find_element("css selector", "[data-place]").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_hostile_names_and_values_stay_text(browser, tmp_path):
    page = make(leave_hostile(tmp_path / "<b>study</b>"), tmp_path / "report.html", "--unfinished")
    requests(browser)
    visit(browser, page)
    open_all(browser)
    for metric in (f"learn/{HOSTILE[0]}", "__proto__", "constructor"):
        drawn = """return [...document.querySelectorAll("[data-metric]")].some(
            (one) => one.dataset.metric === arguments[0] && one.querySelector("canvas"))"""
        wait_for(partial(browser.execute_script, drawn, metric), 5)
    assert browser.execute_script("return [typeof window.hacked, {}.polluted]") == ["undefined", None]
    made = "return document.querySelectorAll('main b, main img:not(.still), main script').length"
    assert browser.execute_script(made) == 0
    assert HOSTILE[0] in browser.execute_script("return document.body.textContent")
    assert requests(browser) == [page.as_uri()]
    assert complaints(browser) == []
    width = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert width <= 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(browser, study, dark):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    try:
        visit(browser, study)
        open_all(browser)
        assert findings(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{**scheme, "value": "light"}]})


@pytest.mark.slow
def test_a_hundred_runs_open_within_two_seconds_and_ten_megabytes(tmp_path):
    page = make(leave_large(tmp_path / "study"), tmp_path / "report.html")
    megabytes = page.stat().st_size / 1e6
    with chromium() as driver:
        began = time.monotonic()
        visit(driver, page)
        driver.execute_script("document.querySelector('#study-0-curves-0').scrollIntoView()")
        wait_for(lambda: count(driver, "#study-0-curves-0", BLUE) > 0)
        seconds = time.monotonic() - began  # until all of it is there and its largest chart is drawn
        began, charts = time.monotonic(), "return document.querySelectorAll('.run[open] canvas').length"
        driver.execute_script("document.querySelector('.run').open = true")
        wait_for(lambda: driver.execute_script(charts) >= 31)
        opened = time.monotonic() - began
    print(f"\n{megabytes:.1f} MB, opens in {seconds:.2f} s, a run's charts in {opened:.2f} s")
    assert megabytes < 10
    assert seconds < 2
