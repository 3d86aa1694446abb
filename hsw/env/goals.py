"""What goal environments tell beside their steps: the reward under another goal, and whether an episode succeeded."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from hsw.errors import EnvError
from hsw.spaces import SpaceSpec

# (achieved goals, desired goals, info) to one number or flag for each pair.
GoalFunction = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]


class GoalFunctions(NamedTuple):
    """A goal environment's reward and termination as functions of goals (Plappert et al. 2018, arXiv:1802.09464).

    Both take the achieved goals and the desired ones, [*, *goal_shape] with any leading axes, and an info that is
    handed on as it is ({} does for all known environments). achieved is where a step led, not where it began.

    Attributes:
        compute_reward: Returns the rewards, float32 [*].
        compute_terminated: Returns whether the step ends its episode, bool [*]; None where reaching the goal does not.
    """

    compute_reward: GoalFunction
    compute_terminated: GoalFunction | None = None


def is_goal_space(space: SpaceSpec) -> bool:
    """Whether observations are those of a goal environment, with goals that are arrays."""
    achieved, desired = space.spaces.get("achieved_goal"), space.spaces.get("desired_goal")
    if achieved is None or desired is None or "observation" not in space.spaces:
        return False
    return achieved.type == desired.type == "Box" and achieved.shape == desired.shape


def read_goals(env: gym.Env, goal_shape: tuple[int, ...]) -> GoalFunctions | None:
    """The functions of an unwrapped environment that has a compute_reward, as gymnasium-robotics' have; else None.

    Args:
        env: Asked for every batch of goals; it need not have been reset.
        goal_shape: Shape of one goal.
    """
    reward = getattr(env, "compute_reward", None)
    if not callable(reward) or getattr(reward, "__isabstractmethod__", False):
        return None
    terminated = getattr(env, "compute_terminated", None)
    if not callable(terminated) or getattr(terminated, "__isabstractmethod__", False):
        return GoalFunctions(_Batched(reward, goal_shape, np.float32))
    goal = np.zeros(goal_shape)
    # A constant False, as Fetch has, says no even where the goal is reached: the stored flags hold for every goal.
    ends = bool(np.all(terminated(goal, goal, {})))
    return GoalFunctions(
        _Batched(reward, goal_shape, np.float32), _Batched(terminated, goal_shape, np.bool_) if ends else None
    )


def fetch_goals(reward_type: str = "sparse", distance_threshold: float = 0.05) -> GoalFunctions:
    """The reward of the Fetch tasks (Plappert et al. 2018, arXiv:1802.09464), for backends that do not tell it.

    Args:
        reward_type: "sparse" pays -1 while the goal is farther than the threshold, "dense" minus the distance.
        distance_threshold: In metres.
    """

    def compute_reward(achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        distance = np.linalg.norm(achieved - desired, axis=-1)
        return -np.asarray(distance if reward_type == "dense" else distance > distance_threshold, np.float32)

    return GoalFunctions(compute_reward)


def read_success(info: dict[str, Any], index: int) -> bool | None:
    """Whether an environment's last step reached its goal, from the vector's info; None where it does not tell."""
    for name in ("is_success", "success"):
        values = info.get(name)
        if isinstance(values, np.ndarray) and values.ndim == 1:
            told = info.get(f"_{name}")  # Gymnasium's mask of the environments that told; EnvPool's all do
            if told is None or told[index]:
                return bool(values[index])
    return None


class _Batched:
    """A function of two goals as one of two batches, whether it was written for batches or not.

    gymnasium-robotics' compute_reward takes batches; PointMaze's compute_terminated answers a batch with one flag.

    Raises:
        EnvError: From a call, if it does not give one finite number for each pair of goals.
    """

    def __init__(self, function: Callable[..., Any], goal_shape: tuple[int, ...], dtype: Any) -> None:
        self._function, self._goal_shape, self._dtype = function, goal_shape, dtype
        self._name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        leading = achieved.shape[: achieved.ndim - len(self._goal_shape)]
        values = self._numbers(self._function(achieved, desired, info), leading)
        if values.shape != leading:
            pairs = zip(achieved.reshape(-1, *self._goal_shape), desired.reshape(-1, *self._goal_shape), strict=True)
            singles = [self._numbers(self._function(*pair, info), ()) for pair in pairs]
            for single in singles:
                if single.size != 1:
                    raise EnvError(f"the environment's {self._name} gave {single.shape} for one pair of goals")
            values = np.array(singles).reshape(leading)
        with np.errstate(over="ignore"):
            cast: np.ndarray = values.astype(self._dtype)
        if not np.isfinite(cast).all():
            where = np.argwhere(~np.isfinite(cast))[0]
            pair = f"{achieved[tuple(where)]} achieved and {desired[tuple(where)]} desired"
            raise EnvError(f"the environment's {self._name} gave {values[tuple(where)]} for {pair}")
        return cast

    def _numbers(self, values: Any, leading: tuple[int, ...]) -> np.ndarray:
        try:
            array = np.asarray(values)
        except ValueError:  # lists of several lengths
            array = np.array(None)
        if array.dtype.kind not in "biuf":
            many = f"{math.prod(leading)} pairs of goals" if leading else "one pair of goals"
            got = type(values).__name__ if array.dtype.kind == "O" else array.dtype
            raise EnvError(f"the environment's {self._name} gave {got} for {many}; it must give a number for each")
        return array


class LazyGoals:
    """A goal environment's functions, looked for when somebody asks.

    Args:
        goals: They, or what finds them (or None).
        here: here(what, function, *args) calls a function of the environment's and keeps an eye on it.
    """

    def __init__(
        self, goals: GoalFunctions | Callable[[], GoalFunctions | None] | None, here: Callable[..., Any]
    ) -> None:
        self._goals, self._here = goals, here

    @functools.cached_property
    def found(self) -> GoalFunctions | None:
        """The functions, whose calls are watched; None unless this is a goal environment."""
        goals = self._here("construction", self._goals) if callable(self._goals) else self._goals
        if goals is None:
            return None
        reward, terminated = goals
        return GoalFunctions(
            functools.partial(self._here, "compute_reward", reward),
            terminated and functools.partial(self._here, "compute_terminated", terminated),
        )
