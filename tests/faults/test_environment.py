"""Environments that break their contract: code 3, the environment and what it did named, and nothing left running."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsw.env import make_env
from hsw.errors import EnvError
from tests.runs import TINY, agent_of, call, finish, newest, patience, rows, run_dir, start, tiny

FAULTS = {
    "NaNObs": "observation has a NaN",
    "NaNReward": "reward is nan",
    "WrongShape": "has shape (2,), its space says (1,)",
    "WrongDtype": "is int64, its space says float32",
    "OldApi": "old 4-value API",
    "StepRaises": "the simulator fell over",
    "SysExit": "SystemExit: 3",
}


def broken(name: str, folder: Path, *overrides: str, recipe: str = "ppo") -> Any:
    arguments = (f"env.id=tests.envs:{name}-v0", "+env.kwargs.after=40", "checkpoint_interval=20", run_dir(folder))
    continuous = ["+env.kwargs.continuous=true"] * (recipe == "sac")
    return call(*tiny(recipe), *arguments, *continuous, *overrides)


# A worker process hands on what it meets in one of three ways: a value, an error, the end of its program.
@pytest.mark.parametrize(
    ("recipe", "backend", "names"),
    [
        ("ppo", "sync", FAULTS),
        ("ppo", "async", ("NaNObs", "StepRaises", "SysExit")),
        pytest.param("ppo", "async", FAULTS, marks=pytest.mark.slow),
        ("sac", "sync", ("NaNObs", "NaNReward")),
    ],
    ids=("ppo-sync", "ppo-async", "ppo-async-all", "sac-sync"),
)
def test_a_broken_environment_is_named_with_what_it_did(
    recipe: str, backend: str, names: Iterable[str], tmp_path: Path
) -> None:
    for name in names:
        message = FAULTS[name]
        result = broken(name, tmp_path / name, f"env.backend={backend}", recipe=recipe)
        assert result.refused(3, "environment ", message)
        assert newest(tmp_path / name)["step"] >= 20
        assert rows(tmp_path / name)
        assert multiprocessing.active_children() == []


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize(("name", "message"), [("ResetRaises", "did not come up"), ("BuildFails", "no display")])
def test_an_environment_that_does_not_come_up_ends_the_run(
    name: str, message: str, backend: str, tmp_path: Path
) -> None:
    result = call(*TINY, f"env.id=tests.envs:{name}-v0", f"env.backend={backend}", run_dir(tmp_path))
    assert result.refused(3, "environment ", message)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("recipe", "backend"), [("ppo", "sync"), ("ppo", "async"), ("impala", "sync")])
@pytest.mark.parametrize("size", [2**17, pytest.param(2**23, marks=pytest.mark.slow)])  # 16 MB or more, and a gigabyte
def test_an_environment_that_prints_without_end_blocks_nothing(
    recipe: str, backend: str, size: int, tmp_path: Path
) -> None:
    options = ("env.id=tests.envs:Chatty-v0", f"+env.kwargs.size={size}", f"env.backend={backend}", run_dir(tmp_path))
    result = finish(start(*tiny(recipe), *options))
    assert result.code == 0, result.err[-2000:]
    assert result.out.count("x") >= 128 * size
    assert rows(tmp_path)[-1]["step"] >= 128


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_an_environment_that_hangs_is_given_up(backend: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    result = broken("Hang", tmp_path, f"env.backend={backend}", "env.timeout=1.5")
    assert result.refused(3, "1.5 s")
    assert time.monotonic() - begin < patience(14)
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_named(tmp_path: Path) -> None:
    with agent_of("env.backend=async", folder=tmp_path) as agent:
        workers = agent.env._backend.backend.processes
        original = agent.env.step

        def step(actions: Any) -> Any:
            if agent.step == 20:
                os.kill(workers[1].pid, signal.SIGKILL)
            return original(actions)

        agent.env.step = step  # type: ignore[method-assign]
        with pytest.raises(EnvError, match="environment 1: its worker process died"):
            agent.train(128)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("space", ["Graph", "Text"])
def test_spaces_that_hsw_does_not_support_are_refused(space: str, tmp_path: Path, monkeypatch: Any) -> None:
    import gymnasium as gym

    from tests.envs import Counter

    spaces = {"Graph": gym.spaces.Graph(gym.spaces.Discrete(2), None), "Text": gym.spaces.Text(3)}

    class Strange(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces[space]

    gym.register(f"Strange{space}-v0", Strange)
    assert call(*TINY, f"env.id=Strange{space}-v0", run_dir(tmp_path)).refused(2, space)


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("where", ["build", "step"])
def test_an_error_that_cannot_say_what_it_is_is_the_environments(where: str, backend: Any) -> None:
    kwargs = {"what": "wordless", "where": where}
    with pytest.raises(EnvError, match="Wordless: "):
        env = make_env("tests.faults.campaign.bad_env:Bad-v0", backend, 2, kwargs)
        try:
            env.reset()
            env.step(np.zeros(2, np.int64))
        finally:
            env.close()
