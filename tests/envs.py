"""Small environments for the tests: well-behaved ones, and one for every way to break the contract.

Importing this module registers them, so that "tests.envs:Counter-v0" names one from anywhere. An env that fails does so
in the step after `after` steps, counted since it was built, so that a reset does not postpone the fault.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np


class Counter(gym.Env):
    """obs = [steps since reset]; the episode terminates, or is truncated, after `length` steps. Each step pays 1.

    `continuous` actions are two numbers with bounds of their own.
    """

    def __init__(
        self, length: int = 5, truncate: bool = False, after: int = 0, num_actions: int = 2, continuous: bool = False
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space: gym.Space = gym.spaces.Discrete(num_actions)
        if continuous:
            self.action_space = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32))
        self.length, self.truncate, self.after = length, truncate, after
        self.count = self.total = 0

    @property
    def failing(self) -> bool:
        return self.total > self.after

    def observe(self) -> Any:
        return np.array([self.count], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.total += 1
        done = self.count >= self.length
        return self.observe(), 1.0, done and not self.truncate, done and self.truncate, {}


class OneStep(Counter):
    """Every episode ends at its first step."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(length=1, **kwargs)


class Endless(Counter):
    """No episode ends."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(length=sys.maxsize, **kwargs)


class Noise(Counter):
    """Observations, rewards and lengths of episodes are drawn from the episode's seed and answer to the actions."""

    def __init__(self, num_actions: int = 3, **kwargs: Any) -> None:
        super().__init__(num_actions=num_actions, **kwargs)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observe(self) -> np.ndarray:
        if self.count == 0:
            self.place = self.np_random.normal(size=2).astype(np.float32)
            self.length = int(self.np_random.integers(2, 7))
        return self.place.copy()

    def step(self, action: Any) -> Any:
        self.place = self.place + np.float32(action) + self.np_random.normal(size=2).astype(np.float32)
        obs, _, terminated, truncated, info = super().step(action)
        cut = self.length % 2 == 0
        done = terminated or truncated
        return obs, float(self.np_random.normal()) + 2.0, done and not cut, done and cut, info


class Bandit(Counter):
    """Pays 1 for the action that the observation names, else 0."""

    def __init__(self, length: int = 8, **kwargs: Any) -> None:
        super().__init__(length=length, **kwargs)
        self.observation_space = gym.spaces.Box(0, 1, (2,), np.float32)

    def observe(self) -> np.ndarray:
        self.wanted = int(self.np_random.integers(2))
        return np.eye(2, dtype=np.float32)[self.wanted]

    def step(self, action: Any) -> Any:
        reward = float(action == self.wanted)
        obs, _, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, info


class Reach(gym.Env):
    """Box actions with bounds of their own per dimension; the observation is the action that arrived."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.asarray(action, np.float32), 0.0, False, False, {}


class Aim(Counter):
    """Pays for an action that is near to the number observed, at most 0."""

    def __init__(self, length: int = 8, **kwargs: Any) -> None:
        super().__init__(length=length, **kwargs)
        self.observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.spaces.Box(-2, 2, (1,), np.float32)

    def observe(self) -> np.ndarray:
        self.wanted = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.wanted

    def step(self, action: Any) -> Any:
        reward = -float((action - self.wanted).item() ** 2)
        obs, _, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, info


class Unbounded(Counter):
    """Any number is an action."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Homing(Counter):
    """A goal environment: actions and noise move a place. An episode terminates within `radius` of the goal.

    It is truncated after `length` steps, which 0 draws from 2 to 6.
    """

    def __init__(self, length: int = 0, radius: float = 1.0, continuous: bool = True, **kwargs: Any) -> None:
        super().__init__(continuous=continuous, **kwargs)
        self.longest, self.radius = length, radius
        place = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gym.spaces.Dict(
            observation=gym.spaces.Box(-np.inf, np.inf, (3,), np.float32), achieved_goal=place, desired_goal=place
        )

    def observe(self) -> dict[str, np.ndarray]:
        if self.count == 0:
            self.place, self.goal = self.np_random.normal(size=(2, 2)).astype(np.float32)
            self.length = self.longest or int(self.np_random.integers(2, 7))
        observation = np.append(self.place, np.float32(self.count))
        return {"observation": observation, "achieved_goal": self.place.copy(), "desired_goal": self.goal.copy()}

    def step(self, action: Any) -> Any:
        self.place = self.place + np.float32(action) + self.np_random.normal(size=2).astype(np.float32)
        self.place[1] -= 1.5  # the middle of the bounds
        obs, _, ended, _, info = super().step(action)
        terminated = bool(self.compute_terminated(self.place, self.goal, info))
        reward = float(self.compute_reward(self.place, self.goal, info))
        return obs, reward, terminated, ended and not terminated, {"is_success": terminated}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return self.compute_terminated(achieved_goal, desired_goal, info).astype(np.float32) - 1

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return np.asarray(np.linalg.norm(achieved_goal - desired_goal, axis=-1) < self.radius)


class Goals(Counter):
    """Has goals, and does not tell what reward another one would give."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(continuous=True, **kwargs)
        vector = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gym.spaces.Dict(observation=vector, achieved_goal=vector, desired_goal=vector)

    def observe(self) -> dict[str, np.ndarray]:
        return {key: np.full(2, self.count, np.float32) for key in self.observation_space.spaces}


class Goal(Counter):
    """A Dict observation."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        vector = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"observation": vector, "desired_goal": vector})

    def observe(self) -> dict[str, np.ndarray]:
        here = np.full(2, self.count, np.float32)
        return {"observation": here, "desired_goal": here + 10}


class ReusedBuffer(Counter):
    """Writes every observation over the one before."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buffer = np.zeros(1, np.float32)

    def observe(self) -> np.ndarray:
        self.buffer[:] = self.count
        return self.buffer


class Masked(Noise):
    """Some actions are closed in every step, others in the next; one that is closed ends the process's luck.

    At an episode's terminal observation all are. `never` opens none in any; `choices` makes them MultiDiscrete.
    """

    def __init__(
        self, in_obs: bool = False, never: bool = False, choices: Any = None, num_actions: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(num_actions=num_actions, **kwargs)
        self.in_obs, self.never = in_obs, never
        self.sizes = list(choices) if choices else [num_actions]
        if choices:
            self.action_space = gym.spaces.MultiDiscrete(self.sizes)
        self.place_space, size = self.observation_space, sum(self.sizes)
        if in_obs:
            masks = gym.spaces.MultiBinary(size)
            self.observation_space = gym.spaces.Dict(place=self.place_space, action_mask=masks)

    def draw(self, over: bool) -> dict[str, Any]:
        parts = [self.np_random.permutation(np.arange(n) < max(1, n // 2)) for n in self.sizes]
        self.mask = np.concatenate(parts) & (not over and not self.never)
        return {"action_mask": self.mask.copy()}

    def shown(self, obs: np.ndarray) -> Any:
        return {"place": obs, "action_mask": self.mask.astype(np.int8)} if self.in_obs else obs

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        obs, _ = super().reset(**kwargs)
        info = self.draw(False)
        return self.shown(obs), info

    def step(self, action: Any) -> Any:
        starts = np.cumsum([0, *self.sizes[:-1]])
        assert self.mask[starts + np.ravel(action)].all(), "a closed action was taken"
        obs, reward, terminated, truncated, _ = super().step(np.sum(action))
        info = self.draw(terminated)
        return self.shown(obs), reward, terminated, truncated, info


class Float64(Counter):
    """Promises float32 and returns float64."""

    def observe(self) -> np.ndarray:
        return np.array([self.count], np.float64)


class NaNObs(Counter):
    def observe(self) -> np.ndarray:
        return np.array([np.nan if self.failing else self.count], np.float32)


class NaNReward(Counter):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.nan if self.failing else reward, terminated, truncated, info


class WrongShape(Counter):
    def observe(self) -> np.ndarray:
        return np.zeros(2 if self.failing else 1, np.float32)


class WrongDtype(Counter):
    def observe(self) -> np.ndarray:
        return np.array([self.count], np.int64 if self.failing else np.float32)


class OldApi(Counter):
    """Returns Gym's old four values."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.failing:
            return obs, reward, terminated or truncated, info
        return obs, reward, terminated, truncated, info


class ResetRaises(Counter):
    """`after` counts resets; 0 fails in the first."""

    resets = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.resets += 1
        if self.resets > self.after:
            raise RuntimeError("the simulator did not come up")
        return super().reset(**kwargs)


class StepRaises(Counter):
    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            raise RuntimeError("the simulator fell over")
        return result


class TellsSecret(Counter):
    """Has a key in what it says of its failure."""

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            raise RuntimeError(f"the server refused {os.environ['GITHUB_TOKEN']}")
        return result


class SysExit(Counter):
    """Ends the process, as a licence check does."""

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            sys.exit(3)
        return result


class Dies(Counter):
    """Its process is gone, as when memory gives out."""

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


class Hang(Counter):
    """Does not answer."""

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            time.sleep(3600)
        return result


class Chatty(Counter):
    """Prints so many bytes in every step."""

    def __init__(self, size: int = 2**17, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = "x" * size

    def step(self, action: Any) -> Any:
        print(self.text, flush=True)
        return super().step(action)


class BuildFails(Counter):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        raise RuntimeError("no display")


for _env in [Counter, *Counter.__subclasses__(), Reach, Masked]:
    gym.register(f"{_env.__name__}-v0", _env)
