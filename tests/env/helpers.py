"""Driving vector environments with random actions."""

from __future__ import annotations

from typing import Any

import numpy as np

from hsw.env import Step, VectorEnv, make_env


def make(name: str, num_envs: int = 2, backend: Any = "sync", **kwargs: Any) -> VectorEnv:
    return make_env(f"tests.envs:{name}-v0", backend, num_envs, **kwargs)


def random_actions(env: VectorEnv, count: int, seed: int = 0) -> list[np.ndarray]:
    generator, space = np.random.default_rng(seed), env.action_space
    if space.type == "Discrete":
        return list(generator.integers(space.nvec[0], size=(count, env.num_envs)))
    return list(generator.normal(size=(count, env.num_envs, *space.shape)).astype(np.float32))


def play(env: VectorEnv, count: int, seed: int = 0) -> list[Step]:
    return [env.step(action) for action in random_actions(env, count, seed)]


def column(steps: list[Step], name: str) -> list[Any]:
    """One field of one environment over time."""
    return np.stack([getattr(step, name) for step in steps])[:, 0].tolist()
