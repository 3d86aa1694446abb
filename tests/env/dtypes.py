"""Environments whose spaces are in other dtypes than float32 and int64."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

ACTIONS = {
    "float64": gym.spaces.Box(np.array([-1.0, 0.0]), np.array([0.1, 3.0]), dtype=np.float64),
    "float16": gym.spaces.Box(-1, 1, (2,), np.float16),
    "whole": gym.spaces.Box(-3, 5, (2,), np.int32),
    "int32": gym.spaces.Discrete(3, dtype=np.int32),
    "shifted": gym.spaces.Discrete(3, start=-1, dtype=np.int32),
    "int32 each": gym.spaces.MultiDiscrete([2, 3], dtype=np.int32),
    "uint8 each": gym.spaces.MultiDiscrete([2, 3], dtype=np.uint8),
    "binary": gym.spaces.MultiBinary(3),
}
OBSERVATIONS = {
    **{name: gym.spaces.Box(-9, 9, (2,), np.dtype(name).type) for name in ("float64", "float32", "float16", "int32")},
    "uint8 each": gym.spaces.MultiDiscrete([4, 4], dtype=np.uint8),
}


class Typed(gym.Env):
    """Observations and actions of spaces by name; an action that is not in its space is an error."""

    def __init__(self, actions: str = "float64", obs: str = "float64", goals: bool = False) -> None:
        self.action_space, self.part = ACTIONS[actions], OBSERVATIONS[obs]
        goal = gym.spaces.Dict(observation=self.part, achieved_goal=self.part, desired_goal=self.part)
        self.goals, self.observation_space = goals, goal if goals else self.part

    def observe(self) -> Any:
        whole = self.np_random.integers(0, 4, 2)
        obs = whole.astype(self.part.dtype)
        return {"observation": obs, "achieved_goal": obs, "desired_goal": obs[::-1].copy()} if self.goals else obs

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 5
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        assert self.action_space.dtype == np.asarray(action).dtype
        self.left -= 1
        return self.observe(), float(np.sum(action)), False, self.left == 0, {}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return -(np.abs(achieved_goal - desired_goal).sum(-1) > 0).astype(np.float32)


gym.register("Typed-v0", Typed)
