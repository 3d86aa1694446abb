"""What the documentation points at is there."""

from __future__ import annotations

import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.runs import ROOT

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"  # written by make docs, and tested in test_reference.py
WRITTEN = [path for path in sorted(DOCS.rglob("*.md")) if not path.is_relative_to(REFERENCE)]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *WRITTEN]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    places = {target: Path(os.path.normpath(page.parent / target)) for target in targets if "://" not in target}
    missing = [target for target, place in places.items() if not (place.is_relative_to(REFERENCE) or place.exists())]
    assert not missing


def test_every_page_has_one_place_in_the_index() -> None:
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    entries = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    for page in WRITTEN:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name == "index" or len([one for one in entries if fnmatch(name, one)]) == 1, name
    written = {"reference/index", "reference/files"}
    assert all(set("*") & set(one) or one in written or (DOCS / f"{one}.md").exists() for one in entries)


def test_a_link_to_the_reference_names_a_page_that_is_written() -> None:
    sys.path.append(str(DOCS))
    from reference_pages import pages

    written = {"files.md", *pages()}
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            place = Path(os.path.normpath(page.parent / target))
            if place.is_relative_to(REFERENCE):
                assert place.relative_to(REFERENCE).as_posix() in written, f"{page}: {target}"


def test_every_algorithm_is_read_in_at_most_twelve_files() -> None:
    _, *algorithms = (ROOT / "docs" / "reading.md").read_text().split("\n## ")
    recipes = {path.stem for path in (ROOT / "conf" / "agent").glob("*.yaml")}
    listed = set(re.findall(r"conf/agent/(\w+)\.yaml\)", " ".join(algorithms)))
    assert recipes - {"sac", "her_dqn"} == listed  # each is a part of a list: SAC's with hindsight, and DQN's
    for algorithm in algorithms:
        files = re.findall(r"\[`([^`]+)`\]", algorithm)
        assert len(files) == len(set(files)) <= 12
