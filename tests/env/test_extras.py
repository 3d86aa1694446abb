"""Families of environments that need an extra: what they give where it is installed, and what is said where not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsw.env import VectorEnv, make_ale, make_dm_control, make_env, make_minatar, make_minigrid
from hsw.errors import ConfigError
from tests.helpers import equal
from tests.runs import COMMON, finish, rows, run_dir, start

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
dm_control = pytest.mark.skipif(find_spec("dm_control") is None, reason="dm_control is not installed")
ale = pytest.mark.skipif(find_spec("ale_py") is None, reason="ale-py is not installed")


def drive(env: VectorEnv, count: int, seed: int = 0) -> list[Any]:
    """Steps with random actions."""
    random, steps = np.random.default_rng(seed), []
    for _ in range(count):
        space = env.action_space
        if space.type == "Discrete":
            actions = random.integers(space.nvec[0], size=env.num_envs)
        else:
            actions = random.uniform(space.low, space.high, (env.num_envs, *space.shape)).astype(np.float32)
        steps.append(env.step(actions))
    return steps


def resumes_exactly(make: Callable[..., VectorEnv]) -> None:
    one, other = make(seed=3), make(seed=3)
    one.reset()
    drive(one, 20)
    assert not other.load_state_dict(one.state_dict())
    ends = [[(step.obs, step.rewards, step.valid) for step in drive(env, 5, 1)] for env in (one, other)]
    assert equal(*ends)


MISSING = [
    (lambda: make_dm_control(), "dm_control", "hsw.env.dm_control", "dm-control"),
    (lambda: make_ale("pong", backend="sync"), "ale_py", "hsw.env.ale", "ale"),
    (lambda: make_minatar("breakout"), "minatar.gym", "hsw.env.minatar", "mini"),
    (lambda: make_minigrid(), "minigrid", "hsw.env.minigrid", "minigrid"),
]


@pytest.mark.parametrize(("make", "library", "module", "extra"), MISSING)
def test_without_its_library_a_family_names_its_extra(
    make: Any, library: str, module: str, extra: str, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ConfigError, match=rf"not installed; pip install 'hsw\[{extra}\]'"):
        make()


@dm_control
def test_a_task_of_the_control_suite_is_a_vector_that_truncates_after_its_time() -> None:
    env = make_dm_control("cartpole", "balance", num_envs=2)
    assert (env.observation_space.shape, env.observation_space.dtype) == ((5,), "float32")
    env.reset()
    steps = drive(env, 1000)
    assert steps[-1].truncateds.all()
    assert not any(step.terminateds.any() for step in steps)
    assert not any(step.truncateds.any() for step in steps[:-1])
    assert all(((step.rewards >= 0) & (step.rewards <= 1)).all() for step in steps)


@dm_control
def test_the_control_suite_resumes_exactly_and_each_seed_begins_elsewhere() -> None:
    resumes_exactly(lambda **options: make_dm_control("walker", "walk", num_envs=2, **options))
    one, other = (make_dm_control("walker", "walk", seed=seed).reset() for seed in (1, 2))
    assert not np.array_equal(one, other)


@dm_control
def test_a_task_that_there_is_not_is_refused_with_those_near_to_it() -> None:
    with pytest.raises(ConfigError, match=r"env.domain=walkr with env.task=walk .* near to it: walker/walk"):
        make_dm_control("walkr", "walk")


PIXELS = (*COMMON, "env=dm_control", "env.pixels=true", "env.frame_stack=3", "agent=ppo", "storage.num_steps=16")


@dm_control
@pytest.mark.slow
@pytest.mark.parametrize("graphics", ["egl", "osmesa", "nonsense"])
def test_pixels_train_or_one_sentence_says_why_nothing_can_be_drawn(graphics: str, tmp_path: Path) -> None:
    small = ("num_train_steps=64", "algorithm.num_mini_batch=2", "eval_interval=null", "eval_episodes=1")
    ended = finish(start(*PIXELS, *small, run_dir(tmp_path), env={"MUJOCO_GL": graphics}), 300)
    if ended.code == 0:
        assert rows(tmp_path)[-1]["step"] >= 64
        assert graphics != "nonsense"
    else:
        assert ended.refused(2, f"cannot draw here with MUJOCO_GL={graphics}", "MUJOCO_GL=egl", "env.pixels=false")


@ale
def test_a_game_is_four_grey_frames_and_its_rewards_are_clipped_in_training_alone() -> None:
    env, other = (
        make_ale("space_invaders", num_envs=2, backend="sync", training=training) for training in (True, False)
    )
    assert env.observation_space.shape == (4, 84, 84)
    assert env.observation_space.dtype == "uint8"
    assert (env.clip_reward, env.training, other.training) == (1.0, True, False)
    assert env.action_space.nvec == (6,)
    first = env.reset()
    assert not np.array_equal(first[0], first[1])  # actions that do nothing begin a game, up to 30
    assert equal(other.reset(), first)
    assert not np.array_equal(drive(env, 8)[-1].obs, first)


@ale
def test_a_game_resumes_exactly_also_with_sticky_actions() -> None:
    resumes_exactly(lambda **options: make_ale("breakout", num_envs=2, backend="sync", **options))


@ale
def test_a_game_that_there_is_not_is_refused_with_those_near_to_it() -> None:
    with pytest.raises(ConfigError, match=r"env.game=space_invader is no Atari game; near to it: space_invaders"):
        make_ale("space_invader", backend="sync")


@pytest.mark.parametrize("backend", ["sync", "envpool"])
def test_mujocos_version_5_comes_by_gymnasium_and_by_envpool(backend: Any) -> None:
    pytest.importorskip("mujoco")
    if find_spec("envpool") is None:
        pytest.skip("EnvPool is not installed")
    env = make_env("Hopper-v5", backend, 2)
    assert env.reset().shape == (2, 11)
    assert env.action_space.shape == (3,)
    assert drive(env, 3)[-1].obs.shape == (2, 11)
    assert env.exact == (backend == "sync")
    env.close()
