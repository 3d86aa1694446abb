"""The sentences that the pages quote are those of the code, and the keys that they name are there."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.runs import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
QUOTED = [
    quote
    for row in re.findall(r"^\| (.*?) \| .* \| .* \|$", PAGE.read_text(), re.MULTILINE)
    for quote in re.findall(r"`([^`]+)`", row)
    if " " in quote and not quote.startswith("hsw.")
]


@cache
def sentences() -> str:
    """hsw's code, its texts that are broken over lines joined, and what is filled in left open."""
    code = "\n".join(path.read_text() for path in sorted((ROOT / "hsw").rglob("*.py")))
    return re.sub(r"\{[^{}\n]*\}", "<>", re.sub(r"\"\s*\n\s*f?\"", "", code))


@pytest.mark.parametrize("quote", QUOTED)
def test_a_quoted_sentence_is_one_of_the_codes(quote: str) -> None:
    parts = [part.strip(" :;,.()'") for part in re.split(r"<[^<>]*>", quote)]
    telling = [part for part in parts if len(part) > 5]
    assert telling, quote
    assert [part for part in telling if part not in sentences()] == []
