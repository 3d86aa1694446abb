"""How often a study of so many seeds would show a difference, by simulation from a pilot's scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 0.05  # by which false alarms may exceed alpha: intervals of a few seeds are too narrow
_RESAMPLES = 1000  # of a simulated study's interval
_SMOOTHING = 0.9  # bandwidth in standard deviations, of one run
_CHUNK = 2**22  # numbers at a time


@dataclass(frozen=True)
class Power:
    """Shares of simulated studies.

    Attributes:
        seeds: Of each of the two groups.
        power: In how many the interval shows that the better group is better.
        false_alarms: In how many it shows either to be, though they are equally good.
    """

    seeds: int
    power: float
    false_alarms: float


def least_seeds(simulated: Callable[[int], Power], power: float, alpha: float, most: int) -> int | None:
    """The least number of seeds that is enough: for the power, with few false alarms.

    Args:
        simulated: What studies of so many seeds come to.
        power: Asked for.
        alpha: One minus the interval's level.
        most: Seeds to think of.

    Returns:
        Seeds of each group; None if even the most are not enough.
    """

    def enough(seeds: int) -> bool:
        found = simulated(seeds)
        return found.power >= power and found.false_alarms <= alpha + MARGIN

    low, high = 1, min(4, most)
    while not enough(high):  # upwards, since the time of a simulation grows with the square of the seeds
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def simulate(
    pilots: Sequence[np.ndarray], difference: float, seeds: int, alpha: float, studies: int, seed: int
) -> Power:
    """Simulate studies from pilots, with a difference and without.

    Args:
        pilots: Scores [runs, tasks] of the better group and of the other, finite and of two runs at least. Where there
            is one pilot, the other group is taken to scatter as it does.
        difference: Between the groups' means, on each task.
        seeds: Of each group.
        alpha: One minus the interval's level.
        studies: How many.
        seed: Of all that is drawn.

    Returns:
        The shares of studies.
    """
    rng = np.random.default_rng((seed, seeds))
    spreads = [_spreads(rng, pilot, studies) for pilot in pilots]
    x = _draw(rng, pilots[0], spreads[0], seeds)
    y = _draw(rng, pilots[-1], spreads[-1], seeds)
    above, _ = detections(x + difference, y, alpha, rng)
    false = np.logical_or(*detections(x, y, alpha, rng))
    return Power(seeds, float(above.mean()), float(false.mean()))


def detections(x: np.ndarray, y: np.ndarray, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whether the report would show a difference: the interval of its probability of improvement leaves out one half.

    As in the report it is a percentile interval of a bootstrap over runs, stratified by task.

    Args:
        x: Scores of one group in each study, [studies, runs, tasks].
        y: Of the other, [studies, its runs, tasks].
        alpha: One minus the interval's level.
        rng: Draws the resamples, which the studies share, as reports with one seed do.

    Returns:
        Whether x is shown to be better, and whether y is, [studies] each.
    """
    studies, _, tasks = x.shape
    of_x, of_y = (_counts(rng, scores.shape[1], tasks) for scores in (x, y))
    above, below = np.empty((2, studies), bool)
    step = max(1, _CHUNK // (_RESAMPLES * y.shape[1]))
    for begin in range(0, studies, step):
        some = slice(begin, begin + step)
        wins = np.zeros((len(above[some]), _RESAMPLES), np.float32)  # minus losses: whole, so a tie is exactly 0
        for task in range(tasks):
            signs = np.sign(x[some, :, None, task] - y[some, None, :, task], dtype=np.float32)
            wins += np.einsum("srj,rj->sr", of_x[task] @ signs, of_y[task])
        low, high = np.quantile(wins, (alpha / 2, 1 - alpha / 2), axis=1)
        above[some], below[some] = low > 0, high < 0
    return above, below


def _counts(rng: np.random.Generator, runs: int, tasks: int) -> np.ndarray:
    """How often each run is in each resample, [tasks, resamples, runs]."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), (tasks, _RESAMPLES)).astype(np.float32)


def _spreads(rng: np.random.Generator, pilot: np.ndarray, studies: int) -> np.ndarray:
    """How much wider than the pilot's the true spread may be, [studies, 1, tasks].

    What few runs show of it is itself a draw. Planned for as if it were true, too narrow a pilot asks for too few
    seeds, and the promise would not hold on average.
    """
    runs, tasks = pilot.shape
    variances, degrees = pilot.var(0, ddof=1), float(runs - 1)
    shrunk = variances
    if tasks > 1 and variances.min() > 0:
        shrunk, degrees = _shrunk(variances, degrees)
    widths = shrunk / np.where(variances > 0, variances, 1)
    spreads: np.ndarray = np.sqrt(widths * degrees / rng.chisquare(degrees, (studies, 1, tasks)))
    return spreads


def _shrunk(variances: np.ndarray, degrees: float) -> tuple[np.ndarray, float]:
    """Tasks' variances drawn together as far as they differ by no more than chance would have it, and their degrees of
    freedom (Smyth 2004, doi:10.2202/1544-6115.1027). Without it the mean over tasks promises too much: the task that
    seems to scatter least by luck gains more than the one that seems to scatter most loses."""
    logs = np.log(variances) - _log_mean(degrees)
    excess = logs.var(ddof=1) - _log_variance(degrees)
    low, high = 1e-2, 1e6  # degrees of freedom of what the tasks have in common
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _log_variance(middle) > excess else (low, middle)
    common = math.exp(logs.mean() + _log_mean(low))
    total = min(low + degrees, len(variances) * degrees)
    return (low * common + degrees * variances) / (low + degrees), total


def _log_mean(degrees: float) -> float:
    """Mean of the logarithm of chi-squared over its degrees of freedom: digamma(d / 2) - log(d / 2)."""
    x, below = degrees / 2, 0.0
    while x < 8:
        below, x = below + 1 / x, x + 1
    return math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - below - math.log(degrees / 2)


def _log_variance(degrees: float) -> float:
    """Its variance: trigamma(d / 2)."""
    x, below = degrees / 2, 0.0
    while x < 8:
        below, x = below + 1 / x**2, x + 1
    return below + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5)


def _draw(rng: np.random.Generator, pilot: np.ndarray, spreads: np.ndarray, seeds: int) -> np.ndarray:
    """Resample a pilot's deviations from its mean, smoothed, with its unbiased variance, [studies, seeds, tasks].

    Smoothed (Silverman & Young 1987, doi:10.1093/biomet/74.3.469, shrunk so that the variance stays), because ranks of
    a few values that recur are not those of runs.
    """
    runs, tasks = pilot.shape
    width = _SMOOTHING * runs**-0.2
    deviations = (pilot - pilot.mean(0)) * np.sqrt(runs / (runs - 1))
    drawn = deviations[rng.integers(runs, size=(len(spreads), seeds, tasks)), np.arange(tasks)]
    noise = rng.standard_normal(drawn.shape) * pilot.std(0, ddof=1)
    scores: np.ndarray = (np.sqrt(1 - width**2) * drawn + width * noise) * spreads
    return scores
