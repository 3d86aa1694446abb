"""CartPole without velocities: what it shows is not all that counts, for tests of memory."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv


class CartPolePositions(gym.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """CartPole of which only the cart's position and the pole's angle are shown, float32 [2].

    The velocities, on which the right push depends, must be had from earlier observations. As in Wierstra et al. 2007
    ("Solving deep memory POMDPs with recurrent policy gradients") the task is CartPole's otherwise.
    """

    SHOWN = (0, 2)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(CartPoleEnv(**kwargs))
        whole = self.env.observation_space
        assert isinstance(whole, gym.spaces.Box)
        shown = list(self.SHOWN)
        self.observation_space = gym.spaces.Box(whole.low[shown], whole.high[shown], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[list(self.SHOWN)]


gym.register("CartPolePositions-v0", "hsw.env.positions:CartPolePositions", max_episode_steps=500)
