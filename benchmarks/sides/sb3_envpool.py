"""EnvPool as a VecEnv of Stable-Baselines3: the thinnest wrapper that its loop accepts."""

from __future__ import annotations

from typing import Any

import envpool
import numpy as np
from stable_baselines3.common.vec_env import VecEnv


class EnvPoolVecEnv(VecEnv):
    """EnvPool resets a finished environment at its next step; that row counts as a step here."""

    def __init__(self, task: str, num_envs: int, **options: Any) -> None:
        self.pool = envpool.make(task, env_type="gymnasium", num_envs=num_envs, seed=1, num_threads=0, **options)
        super().__init__(num_envs, self.pool.observation_space, self.pool.action_space)

    def reset(self) -> np.ndarray:
        return self.pool.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        obs, rewards, terminateds, truncateds, _ = self.pool.step(self.actions)
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(truncateds & ~terminateds):
            infos[i] = {"TimeLimit.truncated": True, "terminal_observation": obs[i]}
        return obs, rewards, terminateds | truncateds, infos

    def close(self) -> None:
        self.pool.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
