"""compute_reward and its like are environments' code too: in time, sound, and told when they are not."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsw.env import make_env
from hsw.errors import ConfigError, EnvError
from hsw.storage import HerReplayStorage
from tests.faults.test_life import accused, status
from tests.runs import call, patience, run_dir, tiny

GOALS: Any = (np.ones((6, 2), np.float32), np.zeros((6, 2), np.float32), {})


def ask(what: str, where: str = "compute_reward", backend: Any = "sync") -> None:
    """Ask an environment for the rewards of six goals."""
    timeout = 1.0 if what == "hang" else 60.0
    kwargs = {"what": what, "where": where, "after": int(where == "compute_terminated")}  # once it is tried out
    env = make_env("tests.faults.culprits:CulpritGoal-v0", backend, 2, kwargs, timeout=timeout)
    try:
        env.reset()
        function = getattr(env, where)
        function(*GOALS)
    finally:
        env.close()


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("where", ["compute_reward", "compute_terminated"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("hang", "did not answer within 1 s"),
        ("raise", "raised ZeroDivisionError"),
        ("exit", "os._exit(0)"),
        ("no_grad", "grad_enabled(False)"),
        ("shape", "for one pair"),
        ("words", "must give a number for each"),
        ("text", "must give a number for each"),
        ("none", "must give a number for each"),
        ("ragged", "must give a number for each"),
        ("complex", "must give a number for each"),
    ],
)
def test_rewards_of_other_goals_that_break_are_told(what: str, words: str, where: str, backend: str) -> None:
    if backend == "sync" or what in ("hang", "raise"):  # it runs in this process in any case
        with accused(where, words):
            ask(what, where, backend)


@pytest.mark.parametrize("what", ["not_a_number", "huge"])
def test_rewards_of_other_goals_that_are_not_finite_are_told_with_the_goals(what: str) -> None:
    with accused("compute_reward gave", "for [1. 1.] achieved and [0. 0.] desired"):
        ask(what)


def test_an_environment_that_hangs_when_it_is_built_for_its_goals_is_given_up(tmp_path: Path, monkeypatch: Any) -> None:
    env = make_env("tests.faults.culprits:CulpritGoal-v0", "async", 1, timeout=0.3)
    try:
        env.reset()
        monkeypatch.setattr("tests.faults.culprits.Goal.__init__", lambda self: time.sleep(3600))
        begin = time.monotonic()
        with pytest.raises(EnvError, match=r"construction did not answer within 0\.3 s"):
            env.compute_reward  # noqa: B018, a property
        assert time.monotonic() - begin < patience(2)
    finally:
        env.close()


@pytest.mark.parametrize(
    ("what", "words"), [("hang", "within 0.5 s"), ("not_a_number", "gave nan"), ("shape", "for one pair")]
)
def test_a_run_whose_rewards_of_other_goals_break_ends_with_code_3(what: str, words: str, tmp_path: Path) -> None:
    culprit = ("env.id=tests.faults.culprits:CulpritGoal-v0", f"+env.kwargs={{what:{what},after:3}}", "env.timeout=0.5")
    assert call(*tiny("her_sac"), *culprit, run_dir(tmp_path)).refused(3, "compute_reward", words)
    assert (status(tmp_path)["status"], status(tmp_path)["exit_code"]) == ("failed", 3)


def her(reward_fn: Any) -> HerReplayStorage:
    """A storage that draws its rewards from a function of a person's, and is full."""
    env = make_env("tests.faults.culprits:CulpritGoal-v0", "sync", 2, timeout=0.3)
    storage = HerReplayStorage(
        env.observation_space, env.action_space, "cpu", 40, 2, batch_size=20, reward_fn=reward_fn
    )
    storage.attach(env)
    obs = env.reset()
    for _ in range(12):
        actions = np.zeros((2, 2), np.float32)
        step = env.step(actions)
        row = obs, actions, step.rewards, step.terminateds, step.truncateds, step.info, step.obs
        storage.add(*row, valid=step.valid)
        obs = step.obs
    return storage


@pytest.mark.parametrize(
    ("reward_fn", "words"),
    [
        (lambda achieved, desired, info: time.sleep(3600), r"reward_fn did not answer within 0\.3 s"),
        (lambda achieved, desired, info: 1 / 0, "reward_fn raised ZeroDivisionError"),
        (lambda achieved, desired, info: np.full(len(achieved), np.inf), "reward_fn gave inf"),
        (lambda achieved, desired, info: ["x"] * len(achieved), "one number for each"),
    ],
)
def test_a_reward_fn_that_breaks_is_told(reward_fn: Any, words: str) -> None:
    storage = her(reward_fn)
    with pytest.raises(EnvError, match=words):
        storage.sample(0)


def test_a_reward_fn_of_too_few_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="one value for each"):
        her(lambda achieved, desired, info: np.zeros(3)).sample(0)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_a_frame_that_never_comes_is_given_up(backend: Any) -> None:
    kwargs = {"what": "hang", "where": "render"}
    env = make_env("tests.faults.culprits:Culprit-v0", backend, 1, kwargs, timeout=0.3, render_mode="rgb_array")
    with accused("did not answer within 0.3 s"), contextlib.closing(env):
        env.reset()
        env.frame()
