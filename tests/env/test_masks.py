"""Masks of actions on their way from the environment to what the policy sees."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import tests.envs
from hsw.env import as_vector_env
from hsw.errors import ConfigError, EnvError
from hsw.spaces import read_space, space_config
from tests.env.helpers import make

SOURCES = {"info": {"action_mask": "info"}, "obs": {"action_mask": "auto", "kwargs": {"in_obs": True}}}
sources = pytest.mark.parametrize("source", SOURCES)


def allowed(obs: Any) -> np.ndarray:
    """The first allowed action of each environment."""
    return obs["action_mask"].argmax(1)


def played(env: Any, rows: int = 60) -> list[Any]:
    """Observations of rows in which only allowed actions are taken: the environment raises at others."""
    seen = [env.reset()]
    for _ in range(rows):
        seen.append(env.step(allowed(seen[-1])).obs)
    return seen


@sources
def test_masks_come_with_every_observation_alike_from_info_and_from_the_observation(source: str) -> None:
    env = make("Masked", 3, **SOURCES[source])
    assert env.observation_space.masked
    name = "observation" if source == "info" else "place"
    assert set(env.observation_space.spaces) == {name, "action_mask"}
    assert read_space(space_config(env.observation_space)) == env.observation_space
    obs, cut, ended = env.reset(), 0, 0
    for _ in range(60):
        assert obs["action_mask"].dtype == np.int8
        step = env.step(allowed(obs))
        masks = [single.unwrapped.mask for single in env._backend.backend.envs]
        for n in range(3):
            if step.terminateds[n]:
                ended += 1
                assert not masks[n].any()
                assert step.obs["action_mask"][n].all()  # no action counts there
            else:
                cut += step.truncateds[n]
                assert (step.obs["action_mask"][n] == masks[n]).all()
        obs = step.obs
    assert cut
    assert ended


@sources
def test_sync_and_async_see_the_same(source: str) -> None:
    one, other = (make("Masked", 2, backend, **SOURCES[source]) for backend in ("sync", "async"))
    for a, b in zip(played(one, 30), played(other, 30), strict=True):
        assert all((a[key] == b[key]).all() for key in a)
    other.close()


@sources
def test_frames_and_normalisers_leave_masks_alone(source: str) -> None:
    plain, changed = (make("Masked", 2, **SOURCES[source], **options) for options in ({}, {"normalize_obs": True}))
    for a, b in zip(played(plain), played(changed), strict=True):
        assert (a["action_mask"] == b["action_mask"]).all()
    if source == "info":
        stacked = make("Masked", 2, frame_stack=3, **SOURCES[source])
        assert stacked.observation_space.spaces["observation"].shape == (6,)
        played(stacked)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_vector_environment_in_another_mode_keeps_its_masks(mode: AutoresetMode) -> None:
    class Own(SyncVectorEnv):
        """Not stepped one by one, for it may be anything."""

    env = as_vector_env(Own([tests.envs.Masked], autoreset_mode=mode), action_mask="info")
    played(env)


@sources
def test_a_mask_that_allows_nothing_is_the_environments_error(source: str) -> None:
    options = SOURCES[source]
    env = make("Masked", 2, **{**options, "kwargs": {**options.get("kwargs", {}), "never": True}})
    with pytest.raises(EnvError, match=r"environment 0: its action_mask allows no action; .* must be terminated"):
        env.reset()
    env = make("Masked", 2, action_mask="info", kwargs={"choices": [2, 3]})
    env._backend.backend.envs[1].unwrapped.draw = lambda over: {"action_mask": np.array([1, 0, 0, 0, 0], bool)}
    with pytest.raises(EnvError, match="environment 1: its action_mask allows no action of the 3 from 2 on"):
        env.reset()


def test_a_mask_that_is_missing_or_of_another_size_is_told() -> None:
    with pytest.raises(EnvError, match="environment 0: its info has no action_mask"):
        make("Noise", 2, action_mask="info").reset()
    env = make("Masked", 1, action_mask="info")
    env._backend.backend.envs[0].unwrapped.draw = lambda over: {"action_mask": np.ones(3, bool)}
    with pytest.raises(EnvError, match=r"its info's action_mask has the shape \(3,\), and there are 4 actions"):
        env.reset()
    with pytest.raises(ConfigError, match="needs actions that are choices, and these are Box"):
        make("Reach", 1, action_mask="info")


def test_masks_that_nobody_takes_are_mentioned_once() -> None:
    env = make("Masked", 1, action_mask="auto")
    with pytest.warns(UserWarning, match="info has an action_mask, which is not used; env.action_mask=info takes it"):
        env.reset()
    assert not env.observation_space.masked
    assert not make("Masked", 1, action_mask="none", kwargs={"in_obs": True}).observation_space.masked


def test_a_part_of_another_size_is_refused_with_the_way_out() -> None:
    space = gym.spaces.Dict(place=gym.spaces.Box(0, 1, (2,)), action_mask=gym.spaces.MultiBinary(3))
    single = tests.envs.Masked(in_obs=True)
    single.observation_space = space
    with pytest.raises(ConfigError, match=r"has the shape \[3\], and there are 4 actions; with env.action_mask=none"):
        as_vector_env(single)
