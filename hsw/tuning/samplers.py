"""Who proposes the next trial: Optuna's samplers, each proposal by itself, so that a killed study repeats it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from hsw.tuning.journal import Direction, Propose
from hsw.tuning.space import Parameter, grid


def proposer(sampler: str, space: Sequence[Parameter], directions: Sequence[Direction], seed: int) -> Propose:
    """What proposes trials.

    A proposal depends on the trial's number and on the trials before it alone: the sampler is made anew for each, its
    seed is of the number, and it sees the trials in a study of its own. Of a grid the numbers count the points.

    Args:
        sampler: tpe, random or grid.
        space: What varies.
        directions: Of the objectives.
        seed: Of the study.
    """
    if sampler == "grid":
        points = grid(space)
        return lambda number, before: points[number]
    distributions = {parameter.name: parameter.distribution() for parameter in space}

    def propose(number: int, before: list[FrozenTrial]) -> dict[str, Any]:
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            mirror = optuna.create_study(directions=directions, sampler=_made(sampler, own))
            mirror.add_trials(before[:number])
            return dict(mirror.ask(distributions).params)

    return propose


def _made(sampler: str, seed: int) -> optuna.samplers.BaseSampler:
    if sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)
