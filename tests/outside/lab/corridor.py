"""An environment and a wrapper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Corridor(gym.Env[np.ndarray, int]):
    """Walk from the left end to the right; each step costs, and the end pays.

    Args:
        length: Steps from end to end. Observations are the part of the way that is done, float32 [1].
    """

    def __init__(self, length: int = 5) -> None:
        self.length = length
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._place = self._steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._place = max(0, self._place + (1 if action == 1 else -1))
        self._steps += 1
        arrived = self._place == self.length
        return self._observe(), 1.0 if arrived else -0.1, arrived, self._steps >= 4 * self.length, {}

    def _observe(self) -> np.ndarray:
        return np.array([self._place / self.length], np.float32)


class Squared(gym.ObservationWrapper):
    """The square of each number stands beside it."""

    def __init__(self, env: gym.Env[Any, Any], power: float = 2.0) -> None:
        super().__init__(env)
        self.power = power
        width = env.observation_space.shape[0]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2 * width,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, observation**self.power]).astype(np.float32)


gym.register("Corridor-v0", "lab.corridor:Corridor")
