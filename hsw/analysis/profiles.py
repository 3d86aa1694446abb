"""Performance profiles (Agarwal et al. 2021, arXiv:2108.13264): the share of runs that score above each level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEVELS = 201


@dataclass
class Profile:
    """A group's profile: at each level the share of its runs above it, and the 95 % interval of a bootstrap.

    Attributes:
        levels: Scores, [levels].
        share: Of runs that score higher, averaged over tasks, [levels].
        low, high: The interval's ends, [levels]; with one seed the share itself.
    """

    levels: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


def profiles(scores: list[np.ndarray], reps: int = 2000, seed: int = 0) -> list[Profile]:
    """The profiles of groups over common levels, from the lowest score of all to the highest.

    Args:
        scores: Of each group, [seeds, tasks], finite and not empty.
        reps: Resamples of the bootstrap over seeds, stratified by task.
        seed: Of the bootstrap.
    """
    low, high = min(one.min() for one in scores), max(one.max() for one in scores)
    margin = 0.02 * (high - low) or 0.5
    levels = np.linspace(low - margin, high + margin, _LEVELS)
    return [_profile(one, levels, reps, seed) for one in scores]


def _profile(scores: np.ndarray, levels: np.ndarray, reps: int, seed: int) -> Profile:
    above = scores[:, :, None] > levels  # [seeds, tasks, levels]
    share = above.mean((0, 1))
    if len(scores) < 2:
        return Profile(levels, share, share, share)
    generator = np.random.default_rng(seed)
    drawn = np.zeros((reps, len(levels)))
    for task in range(scores.shape[1]):  # each task's runs are drawn on their own
        samples = generator.integers(len(scores), size=(reps, len(scores)))
        weights = np.stack([(samples == n).mean(1) for n in range(len(scores))], 1)  # how often each seed was drawn
        drawn += weights @ above[:, task] / scores.shape[1]
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return Profile(levels, share, low, high)
