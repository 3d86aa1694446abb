"""What ends a trial early. Both rules see figures only, so that a study that was killed decides as it did before."""

from __future__ import annotations

from collections.abc import Sequence


def budgets(full: int, rungs: int, reduction: int) -> list[int]:
    """The budgets of successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943), the last of which is full."""
    return [max(1, -(-full // reduction ** (rungs - 1 - rung))) for rung in range(rungs)]


def goes_on(value: float, others: Sequence[float], reduction: int) -> bool:
    """Whether a trial is among the best 1/reduction at a rung, of those that have been there so far.

    Asynchronous, as in Li et al. 2020, arXiv:1810.05934: the first ones always go on, for want of others.

    Args:
        value: Of the trial.
        others: Of the trials that came to the rung before.
        reduction: One of so many goes on.
    """
    better = sum(other > value for other in others)
    return better < max(1, (len(others) + 1) // reduction)


def loses(scores: Sequence[float], best: Sequence[float], p: float) -> bool:
    """Whether a trial's seeds are worse than the best trial's, seed by seed (Wilcoxon 1945, signed ranks, one-sided).

    Args:
        scores: Of the trial's seeds so far.
        best: Of the same seeds in the best trial.
        p: Probability of giving up one that is as good.
    """
    differences = [one - other for one, other in zip(scores, best, strict=True)]
    if not any(differences):
        return False
    from scipy.stats import wilcoxon

    return bool(wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue <= p)
