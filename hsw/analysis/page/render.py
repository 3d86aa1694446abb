"""The page's text: templates, and a policy under which nothing else runs and nothing is asked for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hsw.analysis.page.context import context
from hsw.analysis.report_data import Report
from hsw.errors import ConfigError
from hsw.secrets import redact

_SHORTEST_SECRET = 12  # characters; most texts of a page are shorter
_OWN_SCRIPT = ("data.js", "charts.js", "page.js")  # one scope


def page(report: Report, folder: Path, watch: float | None = None, pictures: bool = True) -> str:
    """A report as one HTML file.

    Args:
        report: As hsw.report made it.
        folder: In which the file will lie; addresses of videos begin there.
        watch: Seconds after which it will be written again, if it will.
        pictures: Whether the curves are also pictures, for where no script runs.

    Raises:
        ConfigError: If Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError(f"the page needs the extra report ({error}): pip install 'hsw[report]'") from error
    clean = cleaner()

    def finalize(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("hsw.analysis.page"),
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    shown = context(report, folder.absolute(), watch, pictures)
    data = data_text(shown.pop("data"), clean)
    styles = [_static("uPlot.min.css"), _static("page.css")]
    own = "".join(map(_static, _OWN_SCRIPT))
    scripts = [
        f"/*\n{_static('LICENSE.uPlot')}*/\n{_static('uPlot.iife.min.js')}",
        f'(() => {{\n"use strict";\n{own}}})();\n',
    ]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    raw = {"styles": [Markup(one) for one in styles], "scripts": [Markup(one) for one in scripts], "data": Markup(data)}
    return environment.get_template("page.html").render(**shown, **raw, policy=policy)


def cleaner() -> Callable[[str], str]:
    """A function that takes secrets out of a text, and what no reader sees: commands, overrides, half characters."""

    @lru_cache(maxsize=100_000)
    def clean(text: str) -> str:
        text = redact(text) if len(text) >= _SHORTEST_SECRET else text
        if text.isascii() and text.isprintable():
            return text
        return "".join(char if char.isprintable() or char == "\n" else _visible(char) for char in text)

    return clean


def _visible(char: str) -> str:
    return "    " if char == "\t" else " " if char.isspace() else "\ufffd"


def data_text(data: Any, clean: Callable[[str], str]) -> str:
    """JSON that is also safe between script tags: it has no <, and no character beyond ASCII."""
    text = json.dumps(_cleaned(data, clean), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _cleaned(item, clean) for key, item in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], float):
        return [_cleaned(item, clean) for item in value]
    return value


def _static(name: str) -> str:
    return (files("hsw.analysis.page") / "static" / name).read_text(encoding="utf-8")


def _hashes(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
