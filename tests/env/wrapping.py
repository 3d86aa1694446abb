"""Wrappers for the tests: importable, so that configs and workers can name them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Add(gym.ObservationWrapper):
    """obs + amount."""

    def __init__(self, env: gym.Env, amount: float = 1.0) -> None:
        super().__init__(env)
        self.amount = np.float32(amount)

    def observation(self, observation: Any) -> Any:
        return observation + self.amount


class Times(gym.ObservationWrapper):
    """obs * factor."""

    def __init__(self, env: gym.Env, factor: float = 2.0) -> None:
        super().__init__(env)
        self.factor = np.float32(factor)

    def observation(self, observation: Any) -> Any:
        return observation * self.factor


class Counting(gym.Wrapper):
    """Adds the mean of all observations so far, of every episode, to the observation: a state across episodes."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.total, self.count = np.zeros(env.observation_space.shape), 0

    def reset(self, **kwargs: Any) -> Any:
        obs, info = self.env.reset(**kwargs)
        return self.seen(obs), info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        return self.seen(obs), *rest

    def seen(self, obs: Any) -> Any:
        self.total, self.count = self.total + obs, self.count + 1
        return (obs + self.total / self.count).astype(np.float32)


class Saved(Counting):
    """The same, with the two methods by which its state goes into checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


class Odd(Counting):
    """A state that no checkpoint takes."""

    def state_dict(self) -> dict[str, Any]:
        return {"env": self}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return


class Bare(gym.Wrapper):
    """Fails with the environment that it wraps."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        raise KeyError("colour")


def nothing(env: gym.Env) -> None:
    """Forgets to return the environment."""
