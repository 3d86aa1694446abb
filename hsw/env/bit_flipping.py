"""Importing this registers BitFlipping, the smallest goal environment, with Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class BitFlipping(gym.Env):
    """Turn a row of bits into another (Andrychowicz et al. 2017, arXiv:1707.01495, section 4.1).

    The reward is -1 until all bits are the goal's, and 0 then, so that without hindsight nothing is learnt once there
    are many bits. The episode terminates at the goal and is truncated after num_bits steps. Observations are a dict of
    observation, achieved_goal and desired_goal, each float32 [num_bits] of zeros and ones.

    Args:
        num_bits: Length of the row.
        continuous: Actions are in [-1, 1]^num_bits, and every bit whose number is positive is flipped; else an action
            is the index of the one bit to flip, as in the paper.

    Raises:
        ValueError: If there is no bit.
    """

    def __init__(self, num_bits: int = 10, continuous: bool = True) -> None:
        if num_bits < 1:
            raise ValueError(f"num_bits={num_bits} must be at least 1")
        bits = gym.spaces.Box(0, 1, (num_bits,), np.float32)
        self.observation_space = gym.spaces.Dict(observation=bits, achieved_goal=bits, desired_goal=bits)
        self.action_space: gym.Space[Any]
        if continuous:
            self.action_space = gym.spaces.Box(-1, 1, (num_bits,), np.float32)
        else:
            self.action_space = gym.spaces.Discrete(num_bits)
        self.num_bits, self.continuous = num_bits, continuous

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a state and another one as its goal."""
        super().reset(seed=seed)
        self._steps = 0
        self._state, self._goal = self._draw(), self._draw()
        while np.array_equal(self._state, self._goal):
            self._goal = self._draw()
        return self._observe(), {"is_success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        flipped = np.asarray(action) > 0 if self.continuous else np.arange(self.num_bits) == action
        self._state = np.where(flipped, 1 - self._state, self._state)
        self._steps += 1
        info = {"is_success": bool(self.compute_terminated(self._state, self._goal, {}))}
        terminated = info["is_success"]
        truncated = self._steps >= self.num_bits and not terminated
        return self._observe(), float(self.compute_reward(self._state, self._goal, info)), terminated, truncated, info

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Rewards of having achieved some goals, [*], where others were desired; goals are [*, num_bits]."""
        return self.compute_terminated(achieved_goal, desired_goal, info).astype(np.float32) - np.float32(1)

    def compute_terminated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Whether the goals were reached, [*]; goals are [*, num_bits]."""
        return np.asarray(np.all(achieved_goal == desired_goal, axis=-1))

    def _draw(self) -> np.ndarray:
        return self.np_random.integers(0, 2, self.num_bits).astype(np.float32)

    def _observe(self) -> dict[str, np.ndarray]:
        return {
            "observation": self._state.copy(),
            "achieved_goal": self._state.copy(),
            "desired_goal": self._goal.copy(),
        }


if "BitFlipping-v0" not in gym.registry:
    gym.register("BitFlipping-v0", "hsw.env.bit_flipping:BitFlipping")
