"""Environments stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from hsw.env.episode import EpisodeEnv


class SerialVectorEnv(gym.vector.VectorEnv):
    """N EpisodeEnvs in NEXT_STEP mode: what gymnasium.vector.SyncVectorEnv does, at half its overhead.

    Args:
        factories: Build the environments.

    Raises:
        ValueError: If their spaces differ.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, factories: Sequence[Callable[[], EpisodeEnv]]) -> None:
        self.envs = [factory() for factory in factories]
        self.num_envs = len(self.envs)
        first = self.envs[0]
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.render_mode = first.render_mode
        for env in self.envs:
            if env.observation_space != first.observation_space or env.action_space != first.action_space:
                raise ValueError(f"environment {env.index} has other spaces than environment 0")
        self._dones = [False] * self.num_envs

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start every environment; EpisodeEnv knows its own seed. Returns the observations and infos."""
        results = [env.reset(options=options) for env in self.envs]
        self._dones = [False] * self.num_envs
        return _batched([obs for obs, _ in results]), self._merged([info for _, info in results])

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments, or reset those whose episode ended in the last step."""
        rows = [
            self._reset_row(env) if done else env.step(action)
            for env, action, done in zip(self.envs, actions, self._dones, strict=True)
        ]
        observations, rewards, terminateds, truncateds, infos = zip(*rows, strict=True)
        self._dones = [terminated or truncated for terminated, truncated in zip(terminateds, truncateds, strict=True)]
        flags = np.array(terminateds), np.array(truncateds)
        return _batched(observations), np.array(rewards), *flags, self._merged(infos)

    def render(self) -> tuple[Any, ...]:
        """A frame of each environment."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any) -> tuple[Any, ...]:
        """What a method of each environment returns."""
        return tuple(getattr(env, name)(*args) for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()

    @staticmethod
    def _reset_row(env: EpisodeEnv) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, info = env.reset()
        return obs, 0.0, False, False, info

    def _merged(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for index, info in enumerate(infos):
            if info:
                merged = self._add_info(merged, info, index)
        return merged


def _batched(observations: Sequence[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: _batched([obs[key] for obs in observations]) for key in observations[0]}
    return np.array(observations)
