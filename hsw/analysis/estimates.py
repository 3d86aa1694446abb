"""Aggregate scores with intervals, by rliable (Agarwal et al. 2021, arXiv:2108.13264)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from hsw.errors import ConfigError


class Estimate(NamedTuple):
    """A value and its 95 % interval, which is None, None where one seed gives none."""

    value: float
    low: float | None
    high: float | None


def aggregate(scores: np.ndarray, reps: int = 2000, seed: int = 0, gamma: float | None = None) -> dict[str, Estimate]:
    """Aggregates of a group's scores, with percentile intervals of a bootstrap over runs, stratified by task.

    Args:
        scores: One per run and task, [runs, tasks], finite.
        reps: Resamples of the bootstrap.
        seed: Of the bootstrap; the same scores and seed give the same intervals.
        gamma: Score that the optimality gap counts as solved, in the scores' units; None leaves the gap out.

    Returns:
        mean; median: of the tasks' means, or of the runs where there is one task (rliable's would be the mean again);
        iqm: mean of the middle half of all scores; and optimality_gap: how far the scores fall short of gamma.

    Raises:
        ConfigError: If rliable is not installed.
        ValueError: If the scores have another shape or are not finite.
    """
    metrics, library = _rliable()
    scores = _check(scores)
    one_task = scores.shape[1] == 1

    def resampled(sample: np.ndarray) -> np.ndarray:
        # rliable's formulas without the checks of scipy and numpy.mean, which would be most of a resample's time.
        ordered = np.sort(sample, axis=None)
        cut = len(ordered) // 4
        tasks = ordered if one_task else np.sort(sample.sum(0) / len(sample))
        mean, median = tasks.sum() / len(tasks), (tasks[(len(tasks) - 1) // 2] + tasks[len(tasks) // 2]) / 2
        iqm = ordered[cut : len(ordered) - cut].sum() / (len(ordered) - 2 * cut)
        gap = 0.0 if gamma is None else gamma - np.minimum(ordered, gamma).sum() / len(ordered)
        return np.array([mean, median, iqm, gap])

    values = {
        "mean": metrics.aggregate_mean(scores),
        "median": np.median(scores) if one_task else metrics.aggregate_median(scores),
        "iqm": metrics.aggregate_iqm(scores),
        "optimality_gap": metrics.aggregate_optimality_gap(scores, gamma) if gamma is not None else None,
    }
    if len(scores) > 1:
        with _seeded(seed):
            _, intervals = library.get_interval_estimates({"": scores}, resampled, reps=reps)
        bounds = [(float(low), float(high)) for low, high in intervals[""].T]
    else:
        bounds = [(None, None)] * len(values)  # type: ignore[list-item]
    pairs = zip(values.items(), bounds, strict=True)
    return {name: Estimate(float(value), *bound) for (name, value), bound in pairs if value is not None}


def probability_of_improvement(x: np.ndarray, y: np.ndarray, reps: int = 2000, seed: int = 0) -> Estimate:
    """Probability that a run of x scores higher than one of y on the same task, a tie counting half.

    Args:
        x: Scores of one group, [runs, tasks].
        y: Scores of another, [its runs, the same tasks].
        reps: Resamples of the bootstrap, in which x and y are resampled independently.
        seed: Of the bootstrap.

    Returns:
        The mean over tasks, in [0, 1].

    Raises:
        ConfigError: If rliable is not installed.
        ValueError: If the scores have another shape or are not finite.
    """
    metrics, library = _rliable()
    x, y = _check(x), _check(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"scores of {x.shape[1]} and {y.shape[1]} tasks cannot be compared")

    def resampled(some: np.ndarray, other: np.ndarray) -> np.ndarray:
        # The Mann-Whitney statistic that rliable takes from scipy, which also computes a p-value nobody reads.
        signs = np.sign(some[:, None] - other[None])
        return np.array([0.5 + 0.5 * signs.sum() / signs.size])

    value = float(metrics.probability_of_improvement(x, y))
    if min(len(x), len(y)) < 2:
        return Estimate(value, None, None)
    with _seeded(seed):
        _, intervals = library.get_interval_estimates({"": [x, y]}, resampled, reps=reps)
    return Estimate(value, float(intervals[""][0, 0]), float(intervals[""][1, 0]))


def normalise(scores: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Scores on a scale where low is 0 and high is 1; low and high are numbers or one per task."""
    return (np.asarray(scores, float) - low) / (np.asarray(high) - low)


def _check(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or 0 in scores.shape or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape} must be [runs, tasks], not empty, and finite")
    return scores


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # rliable 1.2 draws from NumPy's global generator, whatever random_state it is given.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _rliable() -> tuple[Any, Any]:
    try:
        from rliable import library, metrics
    except ImportError as error:
        raise ConfigError(f"the report needs the extra report ({error}): pip install 'hsw[report]'") from error
    return metrics, library
