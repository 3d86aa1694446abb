"""The guides' questions, tables and commands hold of this version."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.runs import ROOT

DOCS = ROOT / "docs"
COMING_FROM = sorted((DOCS / "coming-from").glob("*.md"))
GUIDES = [DOCS / "questions.md", DOCS / "troubleshooting.md", *COMING_FROM, *sorted((DOCS / "howto").glob("*.md"))]
GROUPS = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra"}
# Asked by new users, in this order: a word of each.
QUESTIONS = [
    *("install", "algorithms", "my environment", "setting", "preset change", "use my environment", "wrap", "spaces"),
    *("while it runs", "metric", "load a policy", "add a network", "study or preset", "tune", "trained weights"),
    *("new seed", "compare studies", "export", "GPU", "does not learn"),
]


@cache
def known() -> set[str]:
    """Every key of the root, and of every choice in its group."""
    keys = {"from", *_read(ROOT / "conf" / "config.yaml")}
    for path in (ROOT / "conf").glob("*/*.yaml"):
        keys |= {f"{path.parent.name}.{key}" for key in _read(path)}
    return keys | GROUPS


def _read(path: Path) -> set[str]:
    return set(OmegaConf.load(path)) - {"defaults", "hydra"}


def assignments(text: str) -> list[tuple[str, str]]:
    """The overrides in a command, or in a phrase of code; what stands for something else is left out."""
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError:
        return []
    pairs = [word.lstrip("~+").partition("=")[::2] for word in words if not word.startswith("-") and "=" in word]
    return [(key, value) for key, value in pairs if re.fullmatch(r"[a-z_][\w./]*", key)]


def commands(page: Path) -> list[str]:
    """Commands of hsw.train, in blocks and in lines."""
    text = page.read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in lines if re.search(r"hsw[.-]train", line)]


def test_each_of_the_twenty_questions_is_a_heading() -> None:
    headings = re.findall(r"^## (\d+)\. (.*\?)$", (DOCS / "questions.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in headings] == list(range(1, 21))
    for (_, heading), word in zip(headings, QUESTIONS, strict=True):
        assert word in heading


def test_each_question_is_answered_by_a_command_or_a_link() -> None:
    _, *answers = re.split(r"^## ", (DOCS / "questions.md").read_text(), flags=re.MULTILINE)
    assert [answer for answer in answers if "](" not in answer and "```" not in answer] == []


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_every_key_in_the_tables_of_names_is_there(page: Path) -> None:
    rows = re.findall(r"^\| (?!-).+? \| (.*?) \|", page.read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(named) > 15
    plain = {"sync", "async", "MISSING"}
    assert [name for name in named if "hsw" not in name and name not in known() | plain] == []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_commands_name_keys_and_choices_that_are_there(page: Path) -> None:
    phrases = [phrase for phrase in re.findall(r"`([^`\n]+)`", page.read_text()) if "<" not in phrase]
    told = [pair for text in (*commands(page), *phrases) for pair in assignments(text)]
    for key, value in told:
        group, _, _ = key.partition(".")
        if key in GROUPS and re.fullmatch(r"\w+", value):
            there = (ROOT / "conf" / key / f"{value}.yaml").exists()
            assert there or value in BROUGHT, f"{key}={value}"
        elif group in GROUPS and "." in key and not re.search(r"kwargs|callbacks|_target_|\.project|tracking_uri", key):
            assert key in known() or key == "storage.cost", key


# Choices that the how-tos' own files bring, and null.
BROUGHT = {path.stem for page in GUIDES for path in map(Path, re.findall(r"conf/\w+/\w+\.yaml", page.read_text()))} | {
    "best",
    "null",
}


def test_a_yes_of_the_comparison_leads_to_what_shows_it() -> None:
    tables = (DOCS / "comparison.md").read_text().split("## Left out")[0]
    cells = [row.rstrip(" |").rpartition(" | ")[2] for row in re.findall(r"^\| .* \|$", tables, re.MULTILINE)]
    claims = [cell for cell in cells if "yes" in cell]
    assert len(claims) > 25
    assert [cell for cell in claims if not re.match(r"\[yes\]\(\S+\)", cell)] == []
