"""Numbers that no network learns from, named with the environment that they came from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hsw.errors import EnvError

_LARGE = 1e76  # of a sum of squares
_LARGEST = float(np.finfo(np.float32).max)


def check_rewards(rewards: np.ndarray, lengths: np.ndarray) -> None:
    """Refuse rewards that float32 does not hold.

    Args:
        rewards: Of a row, [N].
        lengths: Steps of the running episodes before it, [N].

    Raises:
        EnvError: If one is NaN, infinite or too large.
    """
    # The squares' sum tells of all of them at once.
    if float(np.dot(rewards, rewards)) < _LARGE:
        return
    fine = np.abs(rewards) <= _LARGEST
    if not fine.all():
        index = int(np.argmin(fine))
        raise EnvError(
            f"environment {index}: the reward is {rewards[index]} after {lengths[index] + 1} steps, and must be a "
            "number that float32 holds"
        )


def check_finite(obs: Any, lengths: np.ndarray, name: str = "the observation") -> None:
    """Refuse observations, [N, *shape] or a dict of them, with a NaN or infinite number.

    Raises:
        EnvError: If there is one.
    """
    if isinstance(obs, dict):
        for key, part in obs.items():
            check_finite(part, lengths, f"obs[{key!r}]")
    # The sum is finite if all numbers are (short of an overflow, which the second look sorts out).
    elif obs.dtype.kind == "f" and not math.isfinite(np.add.reduce(obs, axis=None)):
        finite = np.isfinite(obs).reshape(len(obs), -1).all(1)
        if not finite.all():
            index = int(np.argmin(finite))
            raise EnvError(
                f"environment {index}: {name} has a NaN or infinite number after {int(lengths[index])} steps"
            )
