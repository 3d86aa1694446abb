"""Environments that are right but for one thing each, which FAULTS names. Importing this registers them."""

from __future__ import annotations

import random
import threading
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode


class Walk(gym.Env):
    """Nothing is wrong: a walk with noise that ends beyond 3, or is truncated after 20 steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    limit = 20

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-10, 10, (2,), np.float32)
        self.action_space: gym.Space = gym.spaces.Discrete(2)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count, self.place = 0, self.np_random.normal(size=2).astype(np.float32)
        return self.observe(), self.info()

    def step(self, action: Any) -> Any:
        self.count += 1
        self.place = self.place + np.float32(0.4 * action - 0.1) + self.np_random.normal(0, 0.1, 2).astype(np.float32)
        arrived = bool(abs(self.place[0]) > 3)
        return self.observe(), self.reward(), arrived, self.count >= self.limit and not arrived, self.info()

    def observe(self) -> Any:
        return np.clip(self.place, -10, 10)

    def reward(self) -> Any:
        return float(self.place[0])

    def info(self) -> Any:
        return {}

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)


class BoolObs(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = gym.spaces.MultiBinary(2)

    def observe(self) -> Any:
        return self.place > 0


class BoolInBox(Walk):
    def observe(self) -> Any:
        return self.place > 0


class WiderDtype(Walk):
    def observe(self) -> Any:
        return super().observe().astype(np.float64)


class AList(Walk):
    def observe(self) -> Any:
        return super().observe().tolist()


class WrongShape(Walk):
    def observe(self) -> Any:
        return np.append(super().observe(), np.float32(0))


class MissingKey(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = gym.spaces.Dict(place=self.observation_space, goal=self.observation_space)

    def observe(self) -> Any:
        return {"place": super().observe()}


class OutOfBounds(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = gym.spaces.Box(-0.5, 0.5, (2,), np.float32)


class NaNObs(Walk):
    def observe(self) -> Any:
        return super().observe() if self.count < 7 else np.full(2, np.nan, np.float32)


class WrittenOver(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buffer = np.zeros(2, np.float32)

    def observe(self) -> Any:
        self.buffer[:] = super().observe()
        return self.buffer


class TwoBuffers(Walk):
    """They take turns."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buffers = np.zeros((2, 2), np.float32)

    def observe(self) -> Any:
        self.buffers[self.count % 2] = super().observe()
        return self.buffers[self.count % 2]


class OwnState(Walk):
    """Whoever writes into an observation moves it."""

    def observe(self) -> Any:
        return self.place


class OwnGenerator(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(0)

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        self.place = self.rng.normal(size=2).astype(np.float32)
        return self.observe(), {}


class Entropy(OwnGenerator):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rng = np.random.default_rng()


class SeedNotPassed(Walk):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset()


class GlobalDraws(Walk):
    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, reward + np.random.rand(), *rest


class SeedsRandom(Walk):
    def reset(self, **kwargs: Any) -> Any:
        random.seed(kwargs.get("seed"))
        return super().reset(**kwargs)


class ClassCounter(Walk):
    total = 0

    def reward(self) -> Any:
        ClassCounter.total += 1
        return float(ClassCounter.total)


STEPS_OF_ALL: list[int] = []


class ModuleList(Walk):
    def reward(self) -> Any:
        STEPS_OF_ALL.append(1)
        return float(len(STEPS_OF_ALL))


class CountStays(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = 0

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = super().step(action)
        self.steps += 1
        return obs, reward, terminated, self.steps >= self.limit and not terminated, info


class VelocityStays(Walk):
    velocity = 0.0

    def step(self, action: Any) -> Any:
        self.velocity += 0.01
        obs, reward, *rest = super().step(action)
        return obs, reward + self.velocity, *rest


class BothFlags(Walk):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        done = terminated or truncated
        return obs, reward, done, done, info


class ClockTerminates(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_steps = 20

    def step(self, action: Any) -> Any:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, self.count >= self.max_steps, False, info


class HiddenClock(ClockTerminates):
    """It shows two places, and in each of them others went on."""

    def observe(self) -> Any:
        return np.full(2, float(self.place[0] > 0), np.float32)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_steps, self.some_other_name = np.int64(20), 20


class MergingWrapper(gym.Wrapper):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info


class NaNReward(Walk):
    def reward(self) -> Any:
        return float("nan") if self.count == 5 else 1.0


class ArrayReward(Walk):
    def reward(self) -> Any:
        return self.place[:1]


class FlagsAsNumbers(Walk):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, int(terminated), truncated, info


class LargeInfo(Walk):
    def info(self) -> Any:
        return {"pixels": np.zeros((100, 100, 10))}


class GrowingInfo(Walk):
    limit = 100

    def info(self) -> Any:
        self.seen = [] if self.count == 0 else [*self.seen, self.place.copy()]
        return {"seen": self.seen}


class UnpicklableInfo(Walk):
    def info(self) -> Any:
        return {"again": lambda: self.place}


class ResetsItself(Walk):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            obs, info = self.reset()
        return obs, reward, terminated, truncated, info


class WritesAction(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = gym.spaces.Box(-2, 2, (2,), np.float32)

    def step(self, action: Any) -> Any:
        action /= 2
        return super().step(action)


class ClosesOnce(Walk):
    closed = False

    def close(self) -> None:
        assert not self.closed, "it is closed"
        self.closed = True


class LeavesThread(Walk):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        threading.Thread(target=threading.Event().wait, daemon=True, name="its-own").start()


class RendersNothing(Walk):
    def render(self) -> Any:
        return None


class RenderDraws(Walk):
    def render(self) -> Any:
        self.np_random.random()
        return super().render()


class Raises(Walk):
    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.count == 9:
            raise KeyError("boom")
        return result


class OldApi(Walk):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class EndsProcess(Walk):
    def step(self, action: Any) -> Any:
        import os
        import signal

        if self.count == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Goal(Walk):
    """Nothing is wrong: it pays -1 until it is near its goal, which ends the episode."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        box = self.observation_space
        self.observation_space = gym.spaces.Dict(observation=box, achieved_goal=box, desired_goal=box)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.goal = np.zeros(2, np.float32)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        obs, _, _, truncated, info = super().step(action)
        pair = obs["achieved_goal"], obs["desired_goal"]
        near = bool(self.compute_terminated(*pair, info))
        return obs, self.pays(*pair, info), near, truncated and not near, info

    def pays(self, achieved: Any, desired: Any, info: Any) -> float:
        return float(self.compute_reward(achieved, desired, info))

    def observe(self) -> Any:
        place = np.clip(self.place, -10, 10)
        return {"observation": place, "achieved_goal": place.copy(), "desired_goal": self.goal.copy()}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.linalg.norm(achieved - desired, axis=-1).__lt__(1.0) - 1.0

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.linalg.norm(achieved - desired, axis=-1) < 1.0


class OtherReward(Goal):
    def pays(self, achieved: Any, desired: Any, info: Any) -> float:
        return super().pays(achieved, desired, info) + 1.0


class GoalOfItsOwn(Goal):
    """Its compute_reward looks at where the environment is, and not at what it is given."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return super().compute_reward(np.broadcast_to(self.place, np.shape(achieved)), desired, info)


class GoalNeedsInfo(Goal):
    """Right, where info is stored."""

    def info(self) -> Any:
        return {"energy": float(self.count)}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return super().compute_reward(achieved, desired, info) - 0.01 * info["energy"]


class ScalesReward(gym.RewardWrapper):
    def reward(self, reward: Any) -> float:
        return 10.0 * float(reward)


class EndsElsewhere(Goal):
    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        near = super().compute_terminated(achieved, desired, info)
        return near if np.ndim(near) == 0 else ~near


class ChangesGoals(Goal):
    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        achieved -= desired + 1
        return super().compute_reward(achieved, -1.0, info)


class DoneTwice(gym.vector.VectorEnv):
    """Its own backend, that says done also in the row that resets."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int = 1, **kwargs: Any) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.count = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.count += 1
        done = np.full(self.num_envs, self.count % 7 in (0, 1) and self.count > 2)
        rewards, none = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 2), np.float32), rewards, done, none, {}


# The kind of finding that each must bring, and the class (or method) that it must name.
FAULTS: dict[str, tuple[str, str]] = {
    "BoolObs": ("obs-dtype", "BoolObs."),
    "BoolInBox": ("obs-dtype", "BoolInBox."),
    "WiderDtype": ("obs-dtype", "WiderDtype."),
    "AList": ("obs-dtype", "AList."),
    "WrongShape": ("obs-shape", "WrongShape."),
    "MissingKey": ("obs-keys", "MissingKey."),
    "OutOfBounds": ("obs-bounds", "OutOfBounds."),
    "NaNObs": ("obs-not-finite", "NaNObs."),
    "WrittenOver": ("reused-buffer", "WrittenOver.reset"),
    "TwoBuffers": ("reused-buffer", "TwoBuffers.step"),
    "OwnState": ("reused-buffer", "OwnState.step"),
    "OwnGenerator": ("ignored-seed", "OwnGenerator.reset"),
    "Entropy": ("ignored-seed", "Entropy.reset"),
    "SeedNotPassed": ("ignored-seed", "SeedNotPassed.reset"),
    "GlobalDraws": ("global-randomness", "GlobalDraws.step"),
    "SeedsRandom": ("global-randomness", "SeedsRandom.reset"),
    "ClassCounter": ("shared-state", "ClassCounter.total"),
    "ModuleList": ("shared-state", "STEPS_OF_ALL"),
    "CountStays": ("done-again-after-reset", "self.steps"),
    "VelocityStays": ("left-over", "self.velocity"),
    "BothFlags": ("terminated-and-truncated", "BothFlags.step"),
    "ClockTerminates": ("time-limit-as-termination", "self.max_steps"),
    "HiddenClock": ("time-limit-as-termination", "HiddenClock.step"),
    "Merged": ("time-limit-as-termination", "MergingWrapper.step"),
    "NaNReward": ("reward-not-finite", "NaNReward.step"),
    "ArrayReward": ("reward-type", "ArrayReward.step"),
    "FlagsAsNumbers": ("flag-type", "FlagsAsNumbers.step"),
    "LargeInfo": ("info-large", "'pixels'"),
    "GrowingInfo": ("info-grows", "GrowingInfo.step"),
    "UnpicklableInfo": ("info-unpicklable", "'again'"),
    "ResetsItself": ("reset-within-step", "ResetsItself.step"),
    "WritesAction": ("action-changed", "WritesAction.step"),
    "ClosesOnce": ("close", "ClosesOnce.close"),
    "LeavesThread": ("close", "its-own"),
    "RendersNothing": ("render", "RendersNothing.render"),
    "RenderDraws": ("render-changes", "RenderDraws.render"),
    "Raises": ("raises", "boom"),
    "OldApi": ("raises", "got 4 values"),
    "EndsProcess": ("process-ends", "exit code -9"),
    "OtherReward": ("goal-reward", "OtherReward.compute_reward"),
    "GoalOfItsOwn": ("goal-function", "GoalOfItsOwn.compute_reward"),
    "ScaledGoal": ("goal-reward", "ScalesReward.step"),
    "EndsElsewhere": ("goal-terminated", "EndsElsewhere.compute_terminated"),
    "ChangesGoals": ("goal-changed", "ChangesGoals.compute_reward"),
    "DoneTwice": ("done-twice", "says done twice"),
}

for _name, _env in list(globals().items()):
    if isinstance(_env, type) and issubclass(_env, Walk):
        gym.register(f"Planted{_name}-v0", _env)  # tests.envs has some of these names
gym.register("PlantedMerged-v0", lambda **kwargs: MergingWrapper(gym.wrappers.TimeLimit(Walk(**kwargs), 10)))
gym.register("PlantedScaledGoal-v0", lambda **kwargs: ScalesReward(gym.wrappers.TimeLimit(Goal(**kwargs), 10)))
gym.register("PlantedDoneTwice-v0", vector_entry_point=DoneTwice)
