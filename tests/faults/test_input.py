"""What no run can work with is refused in one sentence, with the right code, before or when it is met."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.cli.main import describe
from hsw.env import VectorEnv, as_vector_env
from hsw.errors import ConfigError, EnvError
from tests.envs import Counter
from tests.runs import TINY, agent_of, call, run_dir

spaces = gym.spaces
ONE = spaces.Box(-1, 1, (1,), np.float32)


def strange(obs: Any = None, actions: Any = None, step: Callable[[Any], Any] = lambda row: row) -> Callable[[], Any]:
    """What makes an environment with other spaces, or whose steps return something else."""

    class Strange(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = self.observation_space if obs is None else obs
            self.action_space = self.action_space if actions is None else actions

        def observe(self) -> Any:
            self.observation_space.seed(self.count)
            return super().observe() if obs is None else self.observation_space.sample()

        def step(self, action: Any) -> Any:
            return step(super().step(action))

    return Strange


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def opened(make: Any, **options: Any) -> VectorEnv:
    """An environment that is closed after the test."""
    OPENED.append(as_vector_env(make, **options))
    return OPENED[-1]


OPENED: list[VectorEnv] = []
REFUSED = [
    (strange(obs=spaces.Discrete(3, start=-2)), "count from 0"),
    (strange(obs=spaces.Dict(a=spaces.MultiDiscrete([2, 2], start=[0, 1]))), "count from 0"),
    (strange(actions=spaces.Box(-1, 1, (), np.float32)), r"shape \(\)"),
    (strange(actions=spaces.Box(-1, 1, (0,), np.float32)), r"shape \(0,\)"),
    (strange(obs=spaces.Dict({"a.b": ONE})), r"'a\.b'"),
    (strange(obs=spaces.Dict({"": ONE})), "''"),
    (strange(obs=spaces.Dict({"keys": ONE})), "'keys'"),
    (strange(obs=spaces.Dict({})), "empty"),
    (strange(obs=spaces.Dict(a=spaces.Dict({}), b=ONE)), "empty"),
    (strange(actions=spaces.Discrete(10**9)), "1,000,000 choices"),
    (strange(obs=spaces.MultiDiscrete([10**6, 10**6])), "1,000,000 choices"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_spaces_that_no_network_takes_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        as_vector_env(make)


@pytest.mark.parametrize(
    ("obs", "actions"),
    [
        (None, spaces.Discrete(3, start=-2)),
        (spaces.Box(-1, 1, (), np.float32), None),
        (spaces.Dict({"é ü": ONE}), None),
    ],
)
def test_unusual_spaces_train(obs: Any, actions: Any, tmp_path: Path) -> None:
    name = f"Unusual{hash((str(obs), str(actions))) % 10**6}-v0"
    gym.register(name, strange(obs, actions))
    assert call(*TINY, f"env.id={name}", "num_train_steps=32", run_dir(tmp_path)).code == 0


@pytest.mark.parametrize("reward", [1e39, -1e39, float("inf"), float("nan")])
def test_a_reward_that_float32_does_not_hold_is_named_as_the_reward(reward: float) -> None:
    env = opened(strange(step=lambda row: (row[0], reward, *row[2:])), num_envs=2)
    env.reset()
    with pytest.raises(EnvError, match="environment 0: the reward is"):
        env.step(np.zeros(2, np.int64))


def test_a_large_reward_is_one() -> None:
    env = opened(strange(step=lambda row: (row[0], 3e38, *row[2:])), num_envs=2)
    env.reset()
    assert (env.step(np.zeros(2, np.int64)).rewards == np.float32(3e38)).all()


def test_a_category_beyond_its_space_is_the_environments_fault() -> None:
    env = opened(strange(spaces.Discrete(3)))
    env.reset()
    first = env._backend.backend.envs[0]
    first.env.observe = lambda: 3
    with pytest.raises(EnvError, match="says 0 to 2"):
        env.step(np.zeros(1, np.int64))


def test_infos_that_look_like_those_of_atari_count_for_nothing() -> None:
    env = opened(strange(step=lambda row: (*row[:4], {"lives": 3, "terminated": True, "reward": 7.0})))
    env.reset()
    for _ in range(5):
        env.step(np.zeros(1, np.int64))
    (episode,) = env.pop_episodes()
    assert (episode.episode_return, episode.length) == (5.0, 5)


BAD = [
    ("threads=100000", "threads=100000 must be in [1, 1024]"),
    ("network.hidden_sizes=[-1]", "network.hidden_sizes=[-1] must be at least 1"),
    ("network.hidden_sizes=[8,0]", "network.hidden_sizes=[8, 0] must be at least 1"),
    ("env.num_envs=1 storage.num_steps=1 algorithm.num_mini_batch=1", "keeps 0 transitions"),
    ("env.num_envs=1 storage.num_steps=8 algorithm.num_mini_batch=8", "keeps 4 transitions"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_settings_that_cannot_work_are_refused_before_the_start(arguments: str, words: str, tmp_path: Path) -> None:
    assert call(*TINY, *arguments.split(), run_dir(tmp_path)).refused(2, words)


def test_the_smallest_rollout_that_is_not_refused_trains_on_one_step_episodes() -> None:
    small = ("env.num_envs=1", "storage.num_steps=8", "algorithm.num_mini_batch=4", "env.id=tests.envs:OneStep-v0")
    with agent_of(*small) as agent:
        agent.train(64)


def test_memory_that_torch_does_not_get_is_code_6() -> None:
    for allocate in (lambda: torch.empty(2**60), lambda: torch.empty(2**62, 2**62), lambda: np.empty(2**58)):
        with pytest.raises((RuntimeError, MemoryError, ValueError)) as error:
            allocate()
        sentence, code = describe(error.value)
        assert (code, sentence.startswith("out of memory")) == (6, True), error.value


def test_a_thread_that_cannot_be_started_is_code_6() -> None:
    sentence, code = describe(RuntimeError("can't start new thread"))
    assert (code, "thread" in sentence and "ulimit" in sentence) == (6, True)


def test_an_interruption_that_comes_out_as_a_librarys_error_is_one() -> None:
    with pytest.raises(AttributeError) as error:
        try:
            raise KeyboardInterrupt
        finally:  # as OmegaConf's read_write tidies up, in a config that is half made
            None.__getattribute__("flags")
    assert describe(error.value) == describe(KeyboardInterrupt()) == ("interrupted before anything was saved", 130)


def test_more_workers_than_open_files_are_refused(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = len(os.listdir("/proc/self/fd")) + 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        result = call(*TINY, "env.backend=async", "env.num_envs=16", run_dir(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.refused(2, "env.num_envs=16", f"open files and {limit} are allowed")


def test_shared_memory_that_is_not_to_be_had_is_memory() -> None:
    """In a process of its own: what torch shares is a file, and its size a limit of the process."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "import torch; from hsw.cli.main import run_main;"
        "run_main(lambda: torch.zeros(200_000).share_memory_())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[0]) == (6, "hsw: out of memory")
