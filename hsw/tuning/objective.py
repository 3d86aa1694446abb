"""How good a trial was: of its runs' metrics, and of nothing that differs when they run again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hsw.analysis.results import read_run


def score_of(folder: Path, metric: str, last: int, budget: int) -> float | None:
    """The mean of a run's last evaluations up to a budget; None if there is none.

    Args:
        folder: The run's, which may have gone on since.
        metric: return or success.
        last: How many evaluations.
        budget: In steps; the evaluation at its end is the first that is not before it.
    """
    points = read_run(folder, metric).evaluations
    end = next((n for n, point in enumerate(points, 1) if point.step >= budget), len(points))
    values = [point.value for point in points[:end][-last:]]
    score = math.fsum(values) / len(values) if values else math.nan
    return score if math.isfinite(score) else None


def steps_to(folder: Path, metric: str, threshold: float, budget: int) -> float:
    """The step of the first evaluation that reaches a threshold; twice the budget of a run that never does."""
    reached = (point.step for point in read_run(folder, metric).evaluations if point.value >= threshold)
    return float(next(reached, 2 * budget))


def iqm(scores: Sequence[float]) -> float:
    """Interquartile mean: of the middle half (Agarwal et al. 2021, arXiv:2108.13264); of fewer than 4 the mean."""
    ordered = sorted(scores)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return math.fsum(middle) / len(middle)
