"""A replay as lists of Python objects, and environments that drive it and a real one alike.

Every observation is a vector [env, number] that no other is like, so that what is drawn tells what it is. So are goals:
achieved ones have the number of their observation, desired ones are negative.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import settings
from hypothesis import strategies as st

PAIR = Box(-np.inf, np.inf, (2,), np.float32)
GOALS = Dict({"observation": PAIR, "achieved_goal": PAIR, "desired_goal": PAIR})
ACTION = Discrete(7)


def examples(count: int) -> settings:
    """So many cases, the same ones in every run."""
    return settings(max_examples=count, deadline=None, derandomize=True)


@dataclass(eq=False)
class Transition:
    env: int
    obs: float
    action: int
    reward: float
    next_obs: float
    terminated: bool
    truncated: bool
    goal: float
    episode: list[Transition] = field(repr=False)  # what there is of it, this one included

    @property
    def offset(self) -> int:
        return next(k for k, other in enumerate(self.episode) if other is self)

    def n_step(self, n: int, discount: float) -> tuple[float, Transition, float]:
        """The sum of up to n discounted rewards, the last of their transitions, what V counts after it."""
        window = self.episode[self.offset : self.offset + n]
        total = sum(discount**k * step.reward for k, step in enumerate(window))
        return total, window[-1], discount ** len(window)


class NaiveReplay:
    """Of each environment the newest capacity + 1 observations, the episodes' last ones among them."""

    def __init__(self, num_envs: int, capacity: int) -> None:
        self.capacity = capacity
        self.places: list[list[Transition | None]] = [[] for _ in range(num_envs)]  # None: an episode's last one
        self.running: list[list[Transition]] = [[] for _ in range(num_envs)]

    def add(self, **values: Any) -> None:
        n = values["env"]
        new = Transition(**values, episode=self.running[n])
        self.running[n].append(new)
        self.places[n].append(new)
        if new.terminated or new.truncated:
            self.cut(n)

    def cut(self, n: int) -> None:
        if self.running[n]:
            self.places[n].append(None)
            self.running[n] = []

    def reset(self) -> None:
        self.__init__(len(self.places), self.capacity)  # type: ignore[misc]

    def standing(self) -> list[Transition]:
        """The transitions that may be drawn, env after env, oldest first."""
        kept = []
        for places, running in zip(self.places, self.running, strict=True):
            pending = bool(running)  # the observation where the newest transition led
            newest = places[len(places) + pending - self.capacity - 1 :] if len(places) > self.capacity else places
            kept += [place for place in newest if place is not None]
        return kept


class NaiveHer(NaiveReplay):
    """Only episodes whose first transition stands; those that outgrow the ring come in parts."""

    def __init__(self, num_envs: int, capacity: int) -> None:
        super().__init__(num_envs, capacity)
        self.limits = [capacity] * num_envs

    def add(self, **values: Any) -> None:
        super().add(**values)
        n = values["env"]
        if not self.running[n]:
            self.limits[n] = self.capacity
        elif len(self.running[n]) >= self.limits[n]:
            super().cut(n)
            self.limits[n] = max(1, self.capacity // 8)

    def cut(self, n: int) -> None:
        super().cut(n)
        self.limits[n] = self.capacity

    def standing(self) -> list[Transition]:
        kept = super().standing()
        numbers = {id(step) for step in kept}
        return [step for step in kept if id(step.episode[0]) in numbers]

    @staticmethod
    def goals(step: Transition, strategy: str) -> list[float]:
        """The goals in hindsight of a transition, all as likely."""
        first = {"future": step.offset, "final": len(step.episode) - 1, "episode": 0}[strategy]
        return [later.next_obs for later in step.episode[first:]]


class Driver:
    """Environments that do what they are told, feeding a storage and a naive one.

    Args:
        reset_rows: After a done comes a row that is not valid (NEXT_STEP), or the next episode at once.
    """

    def __init__(self, storage: Any, naive: NaiveReplay, reset_rows: bool = False, goals: bool = False) -> None:
        self.storage, self.naive, self.reset_rows, self.goals = storage, naive, reset_rows, goals
        self.num_envs = len(naive.places)
        self._number = 0
        self._obs = [self._next() for _ in range(self.num_envs)]
        self._goal = [-self._next() for _ in range(self.num_envs)]
        self._done = [False] * self.num_envs

    def _next(self) -> float:
        self._number += 1
        return float(self._number)

    def _pairs(self, numbers: list[float]) -> np.ndarray:
        return np.array([[n, number] for n, number in enumerate(numbers)], np.float32)

    def _observations(self, numbers: list[float]) -> Any:
        if not self.goals:
            return self._pairs(numbers)
        pairs = self._pairs(numbers)
        return {"observation": pairs, "achieved_goal": pairs, "desired_goal": self._pairs(self._goal)}

    def row(self, events: str) -> dict[str, Any]:
        """One row; an event for each env: "." goes on, "T" terminates, "t" truncates, "b" both.

        Returns:
            What the storage was given.
        """
        valid = [not (self.reset_rows and done) for done in self._done]
        obs, goal = list(self._obs), list(self._goal)
        row = {
            "observations": self._observations(obs),
            "actions": np.array([self._number % 7 + n for n in range(self.num_envs)]) % 7,
            "rewards": np.array([self._next() / 4 if ok else 0.0 for ok in valid], np.float32),
            "terminateds": np.array([ok and event in "Tb" for ok, event in zip(valid, events, strict=True)]),
            "truncateds": np.array([ok and event in "tb" for ok, event in zip(valid, events, strict=True)]),
            "info": {},
        }
        self._obs = [self._next() for _ in range(self.num_envs)]
        row["next_observations"] = self._observations(self._obs)
        self.storage.add(**row, valid=np.array(valid) if self.reset_rows else None)
        for n in range(self.num_envs):
            self._done[n] = bool(row["terminateds"][n] or row["truncateds"][n])
            if valid[n]:
                self.naive.add(
                    env=n,
                    obs=obs[n],
                    action=int(row["actions"][n]),
                    reward=float(row["rewards"][n]),
                    next_obs=self._obs[n],
                    terminated=bool(row["terminateds"][n]),
                    truncated=bool(row["truncateds"][n]),
                    goal=goal[n],
                )
            if self._done[n]:
                self._goal[n] = -self._next()
                if not self.reset_rows:
                    self._obs[n] = self._next()
        return row

    def rows(self, layout: list[str]) -> Driver:
        for events in layout:
            self.row(events)
        return self

    def truncate(self) -> None:
        self.storage.truncate()
        for n in range(self.num_envs):
            self.naive.cut(n)
        if self.naive.__class__ is NaiveHer:
            self.naive.limits = [self.naive.capacity] * self.num_envs

    def reset(self) -> None:
        self.storage.reset()
        self.naive.reset()


@st.composite
def layouts(draw: st.DrawFn, max_rows: int = 40, max_envs: int = 3) -> tuple[int, list[str]]:
    """A number of environments and what happens to each in each row; short and long episodes."""
    num_envs = draw(st.integers(1, max_envs))
    event = st.sampled_from("." * draw(st.integers(0, 12)) + "Ttb")
    row = st.lists(event, min_size=num_envs, max_size=num_envs).map("".join)
    return num_envs, draw(st.lists(row, min_size=1, max_size=max_rows))
