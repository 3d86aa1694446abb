"""Every block of the how-tos runs, and prints what the page shows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from tests.howto import apart, at_home, blocks, expected, forget_modules, here, run
from tests.runs import ROOT

PAGES = {page.stem: page for page in sorted((ROOT / "docs" / "howto").glob("*.md"))}
FAST = ("callback", "masks")  # in this process, with every change
TOPICS = {
    *("environment", "wrappers", "masks", "network", "storage", "algorithm", "callback", "logger", "preset", "study"),
    *("tune", "resume", "report", "export", "cluster", "gpu", "python", "profile", "threads"),
}


def test_there_is_a_page_for_each_topic() -> None:
    assert set(PAGES) == TOPICS


@pytest.mark.parametrize("name", PAGES)
def test_a_block_is_run_or_a_file_or_says_why_not(name: str) -> None:
    own = blocks(PAGES[name])
    for block in own:
        assert block.language in ("bash", "python", "yaml", "toml", "text"), block
        assert block.reason is None or len(block.reason) > 10, block
        if block.language in ("yaml", "toml"):
            assert block.file or block.reason, f"its first line must name the file: {block.body}"
    assert any(block.runs or block.reason for block in own)
    for before, block in zip([None, *own], own, strict=False):
        assert block.language != "text" or (before and (before.runs or before.reason)), "output of what?"


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_shown_can_be_read(name: str) -> None:
    for block in blocks(PAGES[name]):
        if block.language == "python":
            ast.parse(block.body)
        if block.language == "yaml":
            assert yaml.safe_load(block.body)


def test_output_that_is_shown_is_looked_for_line_by_line() -> None:
    pattern = expected("done      return 500.0 ± 0.0 over 20 episodes, 30,026 steps in ...")[0]
    assert pattern.search("done  return 12.5 ± 3.1 over 2 episodes, 512 steps in 0s")
    assert not pattern.search("done  return nan over 2 episodes, 512 steps in 0s")


@pytest.mark.parametrize("name", FAST)
def test_a_short_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)
    try:
        run(PAGES[name], tmp_path, here)
    finally:
        forget_modules(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_as_pasted(name: str, tmp_path: Path) -> None:
    run(PAGES[name], tmp_path, apart)
