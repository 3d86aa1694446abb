"""The sentences that the pages quote are those of the code, and the keys that they name are there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.runs import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
# What is quoted and is no sentence: a command, a key, a value of a column.
QUOTED = [
    quote
    for row in re.findall(r"^\| (.*?) \| .* \| .* \|$", PAGE.read_text(), re.MULTILINE)
    for quote in re.findall(r"`([^`]+)`", row)
    if " " in quote and not quote.startswith("hsw.")
]


@cache
def sentences() -> str:
    """Every text in hsw, what is filled in left open."""
    texts = []
    for path in sorted((ROOT / "hsw").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "<>" for part in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


@pytest.mark.parametrize("quote", QUOTED)
def test_a_quoted_sentence_is_one_of_the_codes(quote: str) -> None:
    parts = [part.strip(" :;,.()'") for part in re.split(r"<[^<>]*>", quote)]
    telling = [part for part in parts if len(part) > 5]
    assert telling, quote
    assert [part for part in telling if part not in sentences()] == []
