"""What the documentation points at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.runs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_every_page_is_in_the_index() -> None:
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "index.md").read_text()))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_every_algorithm_is_read_in_at_most_twelve_files() -> None:
    _, *algorithms = (ROOT / "docs" / "reading.md").read_text().split("\n## ")
    recipes = {path.stem for path in (ROOT / "conf" / "agent").glob("*.yaml")}
    listed = set(re.findall(r"conf/agent/(\w+)\.yaml\)", " ".join(algorithms)))
    assert recipes - {"sac", "her_dqn"} == listed  # each is a part of a list: SAC's with hindsight, and DQN's
    for algorithm in algorithms:
        files = re.findall(r"\[`([^`]+)`\]", algorithm)
        assert len(files) == len(set(files)) <= 12
