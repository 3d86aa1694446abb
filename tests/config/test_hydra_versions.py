"""What Hydra 1.3 and 1.4 do differently goes unnoticed; `make test-hydra14` runs this with the latter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import hsw
from hsw.config.choices import places_named, study_mode
from hsw.errors import ConfigError
from hsw.sweep.callback import jobs_of
from tests.runs import TINY, call, run_dir

SOURCES = [*Path(hsw.__file__).parent.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")]


def test_nothing_of_hydras_private_parts_is_imported() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("hydra._internal")], path


def test_a_run_is_warned_of_nothing_that_a_later_hydra_will_refuse(tmp_path: Path) -> None:
    done = call(*TINY, run_dir(tmp_path))
    assert done.code == 0, done.err
    told = done.err + (tmp_path / "train.log").read_text()
    assert "whitelist" not in told
    assert "deprecated" not in told


def jobs(*overrides: str) -> list[list[str]]:
    return jobs_of(OverridesParser.create().parse_overrides(list(overrides)))


def test_jobs_are_the_product_of_what_is_swept_and_the_last_value_of_a_key_counts() -> None:
    assert jobs("seed=1,2", "agent=ppo,daac", "tag=x", "seed=3,4") == [
        ["seed=3", "agent=ppo", "tag=x"],
        ["seed=3", "agent=daac", "tag=x"],
        ["seed=4", "agent=ppo", "tag=x"],
        ["seed=4", "agent=daac", "tag=x"],
    ]
    assert jobs("seed=range(1,3)", "~preset") == [["seed=1", "~preset=null"], ["seed=2", "~preset=null"]]


def test_a_sweep_over_an_interval_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.lr: .* list them: algorithm\.lr=1,2,3"):
        jobs("algorithm.lr=interval(0,1)")


def test_a_study_that_is_a_sweep_says_so_on_the_command_line(tmp_path: Path) -> None:
    studies = tmp_path / "experiments"
    studies.mkdir()
    (studies / "mine.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    (studies / "single.yaml").write_text("# @package _global_\nseed: 2\n")
    flag = ["--config-dir", str(tmp_path)]
    assert study_mode([*flag, "experiments=mine", "seed=1"]) == [
        *flag,
        "experiments=mine",
        "hydra.mode=MULTIRUN",
        "seed=1",
    ]
    for unchanged in (["experiments=single"], ["experiments=mine", "hydra.mode=RUN"], ["experiments=none"], ["seed=1"]):
        assert study_mode([*flag, *unchanged]) == [*flag, *unchanged]
    assert study_mode(["experiments=value_freq"]) == ["experiments=value_freq", "hydra.mode=MULTIRUN"]


def test_choices_are_looked_for_along_the_whole_search_path(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two", "three")]
    for place in places:
        place.mkdir()
    arguments = ["--config-dir", str(places[0]), f"hydra.searchpath=[file://{places[1]}, pkg://tests.data]", "seed=1"]
    assert places_named(arguments) == [f"file://{places[0]}", f"file://{places[1]}", "pkg://tests.data"]
    assert places_named([f"--config-dir={places[2]}"]) == [f"file://{places[2]}"]
