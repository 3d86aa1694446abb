"""Random transitions of any spaces, and rollouts filled with them."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector.utils import batch_space

from hsw.append_log import AppendLog
from hsw.spaces import tree_map

OBS_SPACES = {
    "box": Box(-1, 1, (4,), np.float32),
    "image": Box(0, 255, (3, 36, 36), np.uint8),
    "dict": Dict(
        {"vector": Box(-1, 1, (4,), np.float32), "nested": Dict({"image": Box(0, 255, (3, 12, 12), np.uint8)})}
    ),
    "discrete": Discrete(5),
}
ACTION_SPACES = {
    "discrete": Discrete(3),
    "multi_discrete": MultiDiscrete([2, 3]),
    "multi_binary": MultiBinary(4),
    "box": Box(-1, 1, (2,), np.float32),
    "matrix": Box(-1, 1, (2, 3), np.float32),
}

# By space, whose seeding takes longer than all else that a storage's test does; the space is kept for its id.
_DRAWN: dict[tuple[int, int, int], tuple[gym.Space, Any]] = {}


def draw(space: gym.Space, num_envs: int, seed: int) -> Any:
    """A batch of elements as arrays, or a dict of them."""
    key = (id(space), num_envs, seed)
    if key not in _DRAWN:
        batched = batch_space(space, num_envs)
        batched.seed(seed)
        _DRAWN[key] = (space, batched.sample())
    return copy.deepcopy(_DRAWN[key][1])


def tensors(batch: Any) -> Any:
    return tree_map(torch.as_tensor, batch)


def transition(storage: Any, obs_space: gym.Space, action_space: gym.Space, num_envs: int, t: int) -> dict[str, Any]:
    """Row t, whose next_obs is row t + 1's obs. The extras name their row and themselves: 100 t + n + i / 4."""
    sample = {
        "obs": draw(obs_space, num_envs, t),
        "actions": draw(action_space, num_envs, t + 1000),
        "rewards": np.random.default_rng(t).normal(size=num_envs).astype(np.float32),
        "terminateds": np.zeros(num_envs, bool),
        "truncateds": np.zeros(num_envs, bool),
        "next_obs": draw(obs_space, num_envs, t + 1),
    }
    names = [name for name in inspect.signature(storage.add).parameters if name not in (*sample, "self", "valid")]
    return {**sample, **{name: 100 * t + torch.arange(num_envs) + i / 4 for i, name in enumerate(names)}}


def fill(storage: Any, obs_space: gym.Space, action_space: gym.Space, num_steps: int, num_envs: int) -> list[dict]:
    rows = [transition(storage, obs_space, action_space, num_envs, t) for t in range(num_steps)]
    for row in rows:
        storage.add(**row)
    return rows


def equal(one: Any, other: Any) -> bool:
    """Whether two trees of tensors, arrays and plain values are the same, dtypes included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, AppendLog) and isinstance(other, AppendLog):
        return equal([one.begin, one.end, columns(one)], [other.begin, other.end, columns(other)])
    if isinstance(one, torch.Tensor | np.ndarray):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        return one.dtype == other.dtype and torch.equal(one, other)
    return one == other


def columns(log: AppendLog) -> list[torch.Tensor]:
    """The rows that count of each column, however they are cut into pieces."""
    parts: list[list[torch.Tensor]] = [[] for _ in log.begin]
    for begin, end, rows in log.pieces():
        of_column = rows.split([last - first for first, last in zip(begin, end, strict=True)])
        for n, column in enumerate(of_column):
            parts[n].append(column[max(0, log.begin[n] - begin[n]) :])
    return [torch.cat(part) if part else torch.zeros(0) for part in parts]


def naive_gae(rewards, values, terminateds, truncateds, discount, gae_lambda, valid):
    """The formula of arXiv:1506.02438, eq. 16, one environment and one step at a time."""
    num_steps, num_envs = rewards.shape
    advantages = torch.zeros(num_steps, num_envs, dtype=torch.float64)
    for n in range(num_envs):
        following = 0.0
        for t in reversed(range(num_steps)):
            if not valid[t, n]:
                following = 0.0
                continue
            next_value = 0.0 if terminateds[t, n] else float(values[t + 1, n])
            delta = float(rewards[t, n]) + discount * next_value - float(values[t, n])
            done = bool(terminateds[t, n] or truncateds[t, n])
            following = delta + (0.0 if done else discount * gae_lambda * following)
            advantages[t, n] = following
    return advantages
