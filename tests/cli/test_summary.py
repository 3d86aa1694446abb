from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gymnasium.spaces import Box, Dict, Discrete

from hsw.cli.summary import last_lines, space_name
from hsw.spaces import read_space
from tests.runs import call, run_dir, tiny_run

FACTS = ("agent", "environment", "preset", "encoder", "parameters", "device", "budget", "folder")


def spoken(*arguments: str, folder: Path) -> tuple[list[str], list[str]]:
    """What a run that is not quiet says first and last on stderr, line by line."""
    result = call(*arguments, "quiet=false", run_dir(folder))
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    end = next(n for n, line in enumerate(lines) if line.startswith("done"))
    return lines[: 1 + next(n for n, line in enumerate(lines) if line.startswith("folder"))], lines[end:]


@pytest.mark.parametrize("recipe", ["ppo", "her_sac", "impala"])
def test_a_run_begins_with_its_facts_and_ends_with_its_score_and_what_to_type(recipe: str, tmp_path: Path) -> None:
    first, last = spoken(*tiny_run(recipe), folder=tmp_path)
    told = dict(line.split(maxsplit=1) for line in first)
    assert set(told) >= {*FACTS} - {"encoder"}  # a policy from outside need not tell its encoders
    assert told["folder"] == str(tmp_path)
    assert "128 steps" in told["budget"]
    score = "success " if recipe == "her_sac" else "return "
    assert last[0].split(maxsplit=1)[1].startswith(score)
    flag, word = (" --allow tests", " 'allow=[tests]'") if recipe == "her_sac" else ("", "")  # its env.id imports tests
    assert last[1:3] == [f"folder    {tmp_path}", f"evaluate  hsw-eval {tmp_path}{flag}"]
    assert last[3].startswith(f"resume    hsw-train resume={tmp_path}{word} num_train_steps=")
    log = (tmp_path / "train.log").read_text()
    assert all(line in log for line in (*first, *last[:4]))


def test_a_quiet_run_shows_no_header_and_keeps_it_in_its_log(tmp_path: Path) -> None:
    result = call(*tiny_run("ppo"), run_dir(tmp_path))
    assert result.err == ""
    assert "environment  CartPole-v1" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        (("env=cartpole",), "ppo_cartpole"),
        (
            ("env=gym", "env.id=CartPole-v1"),
            "none, general values; preset=ppo_cartpole has tuned ones for this environment",
        ),
    ],
)
def test_the_header_says_whose_values_were_taken(arguments: Any, preset: str, tmp_path: Path) -> None:
    first, _ = spoken(*tiny_run("ppo")[:-1], *arguments, folder=tmp_path)
    assert f"preset       {preset}" in first


def test_spaces_take_a_few_characters() -> None:
    space = Dict({"goal": Box(-1, 1, (10,)), "image": Box(0, 255, (3, 84, 84), "uint8"), "n": Discrete(2)})
    assert space_name(read_space(space)) == "{goal: Box[10], image: Box[3, 84, 84] uint8, n: Discrete(2)}"


def test_a_run_without_an_evaluation_still_says_where_it_is() -> None:
    lines = last_lines(None, 1000, 61.0, Path("run"), "hsw-train", []).splitlines()
    assert lines[0] == "done      1,000 steps in 1m01s"
    assert len(lines) == 4
