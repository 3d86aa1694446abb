"""A ring of three states, whose value is known: what an agent learns from must agree with it in every row."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

DISCOUNT = 0.9
REWARDS = np.array([1.0, 2.0, 4.0], np.float32)  # of the state that a step leads to
_A, _B, _C = REWARDS.tolist()
# v0 = r1 + g v1, v1 = r2 + g v2, v2 = r0 + g v0
_V0 = (_B + DISCOUNT * _C + DISCOUNT**2 * _A) / (1 - DISCOUNT**3)
_V2 = _A + DISCOUNT * _V0
VALUES = np.array([_V0, _C + DISCOUNT * _V2, _V2])


class Ring(gym.Env):
    """From state 0 around the ring, whatever the action; truncated after 2 to 5 steps. Observations are one-hot."""

    def __init__(self, goals: bool = False) -> None:
        state = gym.spaces.Box(0, 1, (3,), np.float32)
        goal = gym.spaces.Dict(observation=state, achieved_goal=state, desired_goal=state)
        self.goals, self.observation_space = goals, goal if goals else state
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def observe(self) -> Any:
        state = np.eye(3, dtype=np.float32)[self.state]
        return {"observation": state, "achieved_goal": state, "desired_goal": state} if self.goals else state

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.left = 0, int(self.np_random.integers(2, 6))
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.state = (self.state + 1) % 3
        self.left -= 1
        return self.observe(), float(REWARDS[self.state]), False, self.left == 0, {}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return achieved_goal @ REWARDS


class RingVector(gym.vector.VectorEnv):
    """The ring in an implementation of its own, in any autoreset mode; `mode` None says none and has SAME_STEP."""

    def __init__(self, num_envs: int, mode: str | None = "NextStep", **kwargs: Any) -> None:
        self.metadata = {} if mode is None else {"autoreset_mode": AutoresetMode(mode) if mode != "odd" else "odd"}
        self.mode = mode
        self.envs, self.num_envs = [Ring(**kwargs) for _ in range(num_envs)], num_envs
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.done = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.done[:] = False
        seeds = [None if seed is None else seed + index for index in range(self.num_envs)]
        return self.batch([env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)]), {}

    def step(self, actions: Any) -> Any:
        rows = []
        finals = np.full(self.num_envs, None, object)
        for index, env in enumerate(self.envs):
            if self.done[index] and self.mode == "NextStep":
                rows.append((env.reset()[0], 0.0, False))
                continue
            assert not (self.done[index] and self.mode == "Disabled")
            obs, reward, _, truncated, _ = env.step(actions[index])
            if truncated and self.mode in ("SameStep", None):
                finals[index], obs = obs, env.reset()[0]
            rows.append((obs, reward, truncated))
        observations, rewards, truncateds = zip(*rows, strict=True)
        self.done = np.array(truncateds)
        info = {"final_obs": finals} if any(final is not None for final in finals) else {}
        return self.batch(observations), np.array(rewards), np.zeros(self.num_envs, bool), self.done.copy(), info

    @staticmethod
    def batch(observations: Any) -> Any:
        if isinstance(observations[0], dict):
            return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
        return np.stack(observations)


gym.register("Ring-v0", Ring, vector_entry_point=RingVector)
