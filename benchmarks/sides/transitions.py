"""What both sides of a replay benchmark are filled with: random rows of N environments in episodes of equal length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np


def _box(size: int, bound: float = np.inf) -> gym.spaces.Box:
    return gym.spaces.Box(-bound, bound, (size,), np.float32)


# HalfCheetah's and FetchReach's spaces, in float32.
SPACES = _box(17), _box(6, 1.0)
GOAL_SPACES = (
    gym.spaces.Dict({"observation": _box(10), "achieved_goal": _box(3), "desired_goal": _box(3)}),
    _box(4, 1.0),
)


class Row(NamedTuple):
    """One step of every environment; next_obs is the next row's obs."""

    obs: Any
    actions: np.ndarray
    rewards: np.ndarray
    truncateds: np.ndarray
    next_obs: Any


def rows(spaces: tuple[gym.Space, gym.Space], num_envs: int, number: int, episode_length: int) -> Iterator[Row]:
    """Standard normal observations, the same ones to whoever asks."""
    random = np.random.default_rng(1)

    def observation(space: gym.Space) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {key: observation(part) for key, part in space.items()}
        return random.standard_normal((num_envs, *space.shape), np.float32)

    space, actions = spaces
    next_obs = observation(space)
    for t in range(1, number + 1):
        obs, next_obs = next_obs, observation(space)
        drawn = random.random((num_envs, *actions.shape), np.float32) * 2 - 1
        truncateds = np.full(num_envs, t % episode_length == 0)
        yield Row(obs, drawn, -np.ones(num_envs, np.float32), truncateds, next_obs)


def compute_reward(achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
    """FetchReach's: -1 while the goal is farther than 5 cm."""
    return -(np.linalg.norm(achieved - desired, axis=-1) > 0.05).astype(np.float32)
