"""The environment that parts of an agent are checked on: small, and of known rewards, values and ends.

Importing this registers it.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np

Pays = Literal["noise", "one", "nothing", "much", "potential"]


class Probe(gym.Env[Any, Any]):
    """Every observation is another one, and tells of which episode it is.

    Observations are [tag, time, place, place]: the tag is drawn for each episode, time counts its steps in tenths, and
    actions move the place.

    Args:
        actions: discrete (3), one (a single action) or box (2 numbers between bounds of their own).
        goals: Observations are those of a goal environment; the goal is a place.
        pays: noise, drawn with mean 1; one; nothing; much (a million times noise); or potential: what makes value_of
            the value of every observation, under any policy.
        length: Steps of an episode; 0 draws from 2 to 6. None never ends.
        ends: Episodes are truncated, terminated, or by turns.
        constant: Observations are all the same.
        discount: Of potential.
    """

    def __init__(
        self,
        actions: Literal["discrete", "one", "box"] = "discrete",
        goals: bool = False,
        pays: Pays = "noise",
        length: int | None = 0,
        ends: Literal["both", "truncated", "terminated"] = "both",
        constant: bool = False,
        discount: float = 0.99,
    ) -> None:
        here = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        place = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        parts: dict[str, gym.Space[Any]] = {"observation": here, "achieved_goal": place, "desired_goal": place}
        self.observation_space = gym.spaces.Dict(parts) if goals else here
        low, high = np.array([-1, 0], np.float32), np.array([1, 3], np.float32)
        self.action_space = (
            gym.spaces.Box(low, high) if actions == "box" else gym.spaces.Discrete(1 if actions == "one" else 3)
        )
        self.goals, self.pays, self.length, self.ends = goals, pays, length, ends
        self.constant, self.discount = constant, discount

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        self.tag, *self.goal = self.np_random.normal(size=3).astype(np.float32)
        self.place = self.np_random.normal(size=2).astype(np.float32)
        self.end = int(self.np_random.integers(2, 7)) if self.length == 0 else self.length
        cut = bool(self.np_random.integers(2))
        self.cut = self.ends == "truncated" or (self.ends == "both" and cut)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before = self._here()
        self.count += 1
        noise = self.np_random.normal(size=2).astype(np.float32)
        self.place = self.place + np.float32(0.1) * np.float32(action) + np.float32(0.1) * noise
        done = self.end is not None and self.count >= self.end
        terminated, truncated = done and not self.cut, done and self.cut
        draw = float(self.np_random.normal()) + 1.0
        paid = {"noise": draw, "one": 1.0, "nothing": 0.0, "much": 1e6 * draw}
        if self.goals:
            reward = float(self.compute_reward(self.place, np.array(self.goal), {}))
        elif self.pays == "potential":
            following = 0.0 if terminated else self.discount * float(value_of(self._here()))
            reward = float(value_of(before)) - following
        else:
            reward = paid[self.pays]
        return self._observe(), reward, terminated, truncated, {}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Minus 1 until the place is near the goal, in the scale of pays."""
        scale = {"much": 1e6, "nothing": 0.0}.get(self.pays, 1.0)
        return (np.linalg.norm(achieved_goal - desired_goal, axis=-1) < 1.0).astype(np.float32) * scale - scale

    def _here(self) -> np.ndarray:
        if self.constant:
            return np.zeros(4, np.float32)
        return np.array([self.tag, self.count / 10, *self.place], np.float32)

    def _observe(self) -> Any:
        here = self._here()
        if not self.goals:
            return here
        return {
            "observation": here,
            "achieved_goal": self.place.copy(),
            "desired_goal": np.array(self.goal, np.float32),
        }


def value_of(obs: Any) -> Any:
    """What potential makes the value of observations, [*, 4]: numbers that differ from episode to episode."""
    return 3.0 + obs[..., 0] + 2.0 * obs[..., 1]


gym.register("Probe-v0", "hsw.checking.problems:Probe")
