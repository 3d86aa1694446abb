"""Schedules: what part of a hyper-parameter counts at each point of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from hsw.bounds import Range
from hsw.errors import ConfigError

Factor = Annotated[float, Range(0)]
# What a scheduled value takes: a name, or schedule(progress) -> factor with progress in [0, 1].
Schedule = Literal["constant", "linear", "cosine", "exponential"] | Callable[[float], float]


class Constant:
    """Always the same factor."""

    def __init__(self, factor: Factor = 1.0) -> None:
        self.factor = factor

    def __call__(self, progress: float) -> float:
        return self.factor


class Linear:
    """A straight line from start to end."""

    def __init__(self, start: Factor = 1.0, end: Factor = 0.0) -> None:
        self.start, self.end = start, end

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


class Cosine:
    """Half a cosine from start to end, flat at both (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""

    def __init__(self, start: Factor = 1.0, end: Factor = 0.0) -> None:
        self.start, self.end = start, end

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


class Exponential:
    """From start to end, by the same ratio in equal parts of the run."""

    def __init__(
        self,
        start: Annotated[float, Range(0, open_low=True)] = 1.0,
        end: Annotated[float, Range(0, open_low=True)] = 0.01,
    ) -> None:
        self.start, self.end = start, end

    def __call__(self, progress: float) -> float:
        return float(self.start * (self.end / self.start) ** progress)


class Piecewise:
    """Straight lines between points; before the first and after the last, theirs.

    Args:
        points: [progress, factor] each, in the order of progress.
        interpolate: False holds each point's factor until the next.

    Raises:
        ConfigError: If they are no such points.
    """

    def __init__(self, points: Sequence[Sequence[float]], interpolate: bool = True) -> None:
        self.points = [tuple(float(number) for number in point) for point in points]
        places = [point[0] for point in self.points]
        if not places or any(len(point) != 2 for point in self.points) or any(a >= b for a, b in pairwise(places)):
            raise ConfigError(f"points={[list(p) for p in points]} must be [progress, factor] pairs of rising progress")
        self.interpolate = interpolate

    def __call__(self, progress: float) -> float:
        if progress < self.points[0][0]:
            return self.points[0][1]
        for (begin, factor), (end, following) in pairwise(self.points):
            if progress < end:
                part = (progress - begin) / (end - begin) if self.interpolate else 0.0
                return factor + (following - factor) * part
        return self.points[-1][1]


_NAMED: dict[str, Callable[[float], float]] = {
    "constant": Constant(),
    "linear": Linear(),
    "cosine": Cosine(),
    "exponential": Exponential(),
}


def factor(schedule: Schedule, progress: float) -> float:
    """What a schedule says at a point of the run.

    Raises:
        ConfigError: If there is no schedule of that name.
    """
    if callable(schedule):
        return float(schedule(progress))
    if schedule not in _NAMED:
        raise ConfigError(f"there is no schedule {schedule}; use {', '.join(_NAMED)} or an object of hsw.schedule")
    return _NAMED[schedule](progress)
