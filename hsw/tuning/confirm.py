"""The best trials once more, on seeds that chose nothing: what they are worth, and how much of it was luck."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hsw.analysis.estimates import Estimate, aggregate
from hsw.run.folder import RunFolder
from hsw.tuning.journal import Journal
from hsw.tuning.trials import Plan, Runner, judge

DEFAULTS = "defaults"
_APART = 1000  # the first fresh seed, counted from the first of the trials


@dataclass
class Confirmed:
    """A configuration on fresh seeds.

    Attributes:
        name: trial-0007, or defaults.
        number: Of the trial; None of the defaults.
        tuned: Its score while it was tuned.
        scores: By fresh seed.
        errors: Of seeds that failed.
    """

    name: str
    number: int | None
    tuned: float | None
    scores: dict[int, float] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    @functools.cached_property
    def estimate(self) -> Estimate | None:
        """IQM over the fresh seeds with its 95 % interval; to be asked for once all have run."""
        if not self.scores:
            return None
        return aggregate(np.array([[self.scores[seed]] for seed in sorted(self.scores)]))["iqm"]


def best_trials(trials: Sequence[FrozenTrial], directions: Sequence[str], count: int) -> list[FrozenTrial]:
    """The trials with the best scores; of two objectives those that no other beats in both, the best scores first."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(directions) > 1:
        done = [trial for trial in done if not any(_beats(other, trial) for other in done)]
    return sorted(done, key=lambda trial: (-trial.values[0], trial.number))[:count]


def _beats(one: FrozenTrial, other: FrozenTrial) -> bool:
    (score, cost), (their_score, their_cost) = one.values, other.values
    return score >= their_score and cost <= their_cost and (score, cost) != (their_score, their_cost)


class Confirmation:
    """Runs them.

    Args:
        plan: Of the study.
        journal: Where results are kept.
        runner: Of jobs.
        chosen: The trials.
        baseline: Also run what nothing was varied in.
    """

    def __init__(
        self, plan: Plan, journal: Journal, runner: Runner, chosen: Sequence[FrozenTrial], baseline: bool
    ) -> None:
        self._plan, self._journal, self._runner = plan, journal, runner
        self.rows = [Confirmed(f"trial-{trial.number:04d}", trial.number, trial.values[0]) for trial in chosen]
        self._values: dict[str, dict[str, Any] | None] = {
            row.name: dict(trial.params) for row, trial in zip(self.rows, chosen, strict=True)
        }
        if baseline:
            self.rows.append(Confirmed(DEFAULTS, None, None))
            self._values[DEFAULTS] = None
        first = plan.seeds[0] + _APART
        self.seeds = range(first, first + plan.settings.confirm_seeds)
        self._open = [(row, seed) for row in self.rows for seed in self.seeds]
        self._lock = threading.Lock()

    def take(self) -> Callable[[int], None] | None:
        """A job for a worker, which is called with the worker's slot; None if there is none to be had now."""
        with self._lock:
            for row, seed in self._open:
                claim = self._journal.claim(f"{row.name}-{seed}")
                if claim is None:  # another machine's
                    continue
                self._open.remove((row, seed))
                return functools.partial(self._claimed, claim, row, seed)
        return None

    def done(self) -> bool:
        return not self._open

    def _claimed(self, claim: RunFolder, row: Confirmed, seed: int, slot: int) -> None:
        try:
            self._carry_out(row, seed, slot)
        finally:
            claim.close()

    def _carry_out(self, row: Confirmed, seed: int, slot: int) -> None:
        key = f"{row.name}, seed {seed}"
        told = self._journal.study.user_attrs.get(key)
        if told is None:
            plan, folder = self._plan, self.folder(row.name, seed)
            outcome = self._runner.run(slot, plan.job(self._values[row.name], seed, plan.budget), folder)
            told = judge(plan.settings, outcome, folder, plan.budget)
            if "error" not in told:
                self._journal.study.set_user_attr(key, told)
        if "error" in told:
            row.errors[seed] = told["error"]
        else:
            row.scores[seed] = told["score"]

    def folder(self, name: str, seed: int) -> Path:
        return self._journal.folder / "confirm" / name / f"seed-{seed}"
