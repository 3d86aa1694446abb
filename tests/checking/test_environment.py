"""Each planted fault of an environment is named, and what is right is let pass."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from hsw.checking.command import check_all
from hsw.checking.environment import check_environment
from hsw.checking.findings import Report
from tests.checking.planted import FAULTS


def config_of(id: str, **env: Any) -> DictConfig:
    node = {"_target_": "hsw.env.make_env", "id": id, "backend": "sync", "num_envs": 2, **env}
    return OmegaConf.create({"seed": 1, "env": node})


def checked(id: str, **env: Any) -> Report:
    return check_environment(config_of(id, **env), seconds=0.02, speed=False)


# Those that the others are much like, or that end in a process of their own.
SLOW = ("BoolInBox", "AList", "WrongShape", "OutOfBounds", "TwoBuffers", "Entropy", "SeedNotPassed", "SeedsRandom")
SLOW += ("ModuleList", "VelocityStays", "HiddenClock", "NaNReward", "FlagsAsNumbers", "LargeInfo", "GrowingInfo")
SLOW += (
    "WritesAction",
    "LeavesThread",
    "RendersNothing",
    "OldApi",
    "EndsProcess",
    "MissingKey",
    "ScaledGoal",
    "ChangesGoals",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FAULTS])
def test_a_planted_fault_is_named_with_its_place(name: str) -> None:
    code, words = FAULTS[name]
    backend = "native" if name == "DoneTwice" else "sync"
    report = checked(f"tests.checking.planted:Planted{name}-v0", backend=backend)
    told = [one for one in report.faults if one.code == code]
    assert told, [f"{one.code}: {one.message}" for one in report.findings]
    assert any(words in f"{one.place} {one.message}" for one in told), told
    assert all(one.advice for one in told)
    assert name == "DoneTwice" or any("planted.py:" in one.place for one in told) or name == "EndsProcess"
    assert report.exit_code == 3


def test_an_environment_without_faults_has_none_and_what_it_does_after_the_end_is_a_note() -> None:
    report = checked("tests.checking.planted:PlantedWalk-v0")
    assert report.exit_code == 0
    assert [(one.code, one.note) for one in report.findings] == [("done-twice", True)]
    assert set(report.passed) == {"contract", "seeds", "aliasing", "goals", "closing", "rendering", "backends"}


def test_a_goal_environment_that_needs_info_is_told_which_to_store() -> None:
    right, needs = (checked(f"tests.checking.planted:Planted{name}-v0") for name in ("Goal", "GoalNeedsInfo"))
    assert (right.faults, needs.faults) == ([], [])
    assert [one.advice for one in needs.findings if one.code == "goal-info"] == ["with HER, storage.info_keys=[energy]"]


OWN = ["cartpole", "catch", "bit_flipping", "deep_sea", "doors", "cartpole_positions", "pendulum", "acrobot"]
OWN += ["minatar_breakout", "minigrid", "lunar_lander", "fetch_reach", "point_maze", "halfcheetah", "hopper"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_hsws_own_environments_pass(name: str) -> None:
    report = check_all([f"env={name}"])
    assert report.faults == []
    assert report.figures["steps/s"] > 0


@pytest.mark.parametrize("id", ["hsw.env.bit_flipping:BitFlipping-v0", "hsw.env.doors:Doors-v0"])
def test_two_of_them_pass_in_a_moment(id: str) -> None:
    assert checked(id, action_mask="auto").faults == []
