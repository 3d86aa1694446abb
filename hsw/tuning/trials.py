"""A trial from its values to what the journal is told: its seeds at each budget, and whether they go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import TrialState

from hsw.run.status import JobOutcome
from hsw.tuning.journal import Journal, Taken
from hsw.tuning.objective import iqm, score_of, steps_to
from hsw.tuning.pruning import budgets, goes_on, loses
from hsw.tuning.settings import Settings
from hsw.tuning.space import Parameter, overrides_of


class Runner(Protocol):
    """What runs a job."""

    def run(self, slot: int, overrides: Sequence[str], folder: Path) -> JobOutcome: ...


@dataclass(frozen=True)
class Plan:
    """What all trials have in common.

    Attributes:
        settings: tune.*.
        overrides: Of every run, without seed and budget.
        space: What varies.
        seeds: Of each trial.
        budget: num_train_steps.
        anew: Each rung is a run of its own, because something in it depends on the budget.
    """

    settings: Settings
    overrides: tuple[str, ...]
    space: tuple[Parameter, ...]
    seeds: tuple[int, ...]
    budget: int
    anew: bool = False

    @property
    def rungs(self) -> list[int]:
        """The budgets of a trial, in order."""
        if not self.settings.halves:
            return [self.budget]
        return list(dict.fromkeys(budgets(self.budget, self.settings.rungs, self.settings.reduction)))

    def job(self, values: dict[str, Any] | None, seed: int, budget: int) -> list[str]:
        """The command line of a run; with values None, of one that nothing was varied in."""
        varied = [] if values is None else overrides_of(self.space, values)
        return [*self.overrides, *varied, f"seed={seed}", f"num_train_steps={budget}"]


class Stopped(Exception):
    """The tuner was asked to stop; the trial goes on another time."""


class TrialRunner:
    """Carries out trials.

    Args:
        plan: Of the study.
        journal: Where the others are.
        runner: Of jobs.
    """

    def __init__(self, plan: Plan, journal: Journal, runner: Runner) -> None:
        self._plan, self._journal, self._runner = plan, journal, runner

    def carry_out(self, taken: Taken, slot: int) -> None:
        """Run a trial to its end, and tell the journal.

        Raises:
            Stopped: If the tuner was.
        """
        plan, settings, number = self._plan, self._plan.settings, taken.number
        state, value = TrialState.COMPLETE, 0.0
        told: list[dict[str, Any]] = []
        for rung, budget in enumerate(plan.rungs):
            final = budget == plan.budget
            told = []
            for place, seed in enumerate(plan.seeds):
                one = self._seed(taken, slot, seed, budget)
                if "error" in one:
                    self._note(taken, "error", f"seed {seed}: {one['error']}")
                    self._note(taken, "code", one["code"])
                    self._journal.tell(taken, None, TrialState.FAIL)
                    return
                told.append(one)
                ahead = final and settings.races and place + 1 < len(plan.seeds)
                if ahead and self._loses(number, [each["score"] for each in told]):
                    state = TrialState.PRUNED
                    break
            value = iqm([each["score"] for each in told])
            if settings.second == "none":
                self._journal.report(number, budget * len(told), value)
            if state == TrialState.PRUNED:
                self._note(taken, "pruned", f"its seeds lost the race after {len(told)} of {len(plan.seeds)}")
                break
            if not final:
                self._note(taken, f"rung {budget}", value)
                if not goes_on(value, self._others(number, budget), settings.reduction):
                    state = TrialState.PRUNED
                    self._note(taken, "pruned", f"not among the best at {budget} steps (rung {rung + 1})")
                    break
        self._note(taken, "scores", [each["score"] for each in told])
        values = [value]
        if settings.second != "none":
            values.append(iqm([each[settings.second] for each in told]))
        self._journal.tell(taken, None if state == TrialState.PRUNED else values, state)

    def folder(self, number: int, seed: int, budget: int) -> Path:
        """Where a seed of a trial runs: one folder for all budgets, unless each begins anew."""
        apart = self._plan.anew and budget != self._plan.budget
        return self._journal.place(number) / (f"steps-{budget}" if apart else "") / f"seed-{seed}"

    def _seed(self, taken: Taken, slot: int, seed: int, budget: int) -> dict[str, Any]:
        """What came of a seed at a budget: score, time and steps, or an error."""
        key = f"{budget} steps, seed {seed}"
        if key in taken.attrs:  # before the tuner was killed
            return dict(taken.attrs[key])
        folder = self.folder(taken.number, seed, budget)
        outcome = self._runner.run(slot, self._plan.job(taken.values, seed, budget), folder)
        told = judge(self._plan.settings, outcome, folder, budget)
        self._note(taken, key, told)
        return told

    def _note(self, taken: Taken, key: str, value: Any) -> None:
        if taken.attrs.get(key) != value:
            self._journal.note(taken.number, key, value)
            taken.attrs[key] = value

    def _others(self, number: int, budget: int) -> list[float]:
        """What other trials came to at a budget."""
        key = f"rung {budget}"
        trials = [trial for trial in self._journal.trials() if trial.number != number]
        return [float(trial.user_attrs[key]) for trial in trials if key in trial.user_attrs]

    def _loses(self, number: int, scores: list[float]) -> bool:
        done = [t for t in self._journal.trials() if t.state == TrialState.COMPLETE and t.number != number]
        if not done:
            return False
        best = max(done, key=lambda trial: trial.values[0]).user_attrs["scores"]
        return loses(scores, best[: len(scores)], self._plan.settings.p)


def judge(settings: Settings, outcome: JobOutcome, folder: Path, budget: int) -> dict[str, Any]:
    """What a job's outcome is worth.

    Raises:
        Stopped: If it was stopped.
    """
    if outcome.status in ("interrupted", "running", "not started"):
        raise Stopped
    if outcome.status != "done":
        return {"error": str(outcome.note or outcome.error or outcome.status), "code": outcome.exit_code or 1}
    score = score_of(folder, settings.metric, settings.last, budget)
    if score is None:
        return {"error": f"it has no finite evaluation of {settings.metric}", "code": 4}
    told: dict[str, Any] = {"score": score, "time": outcome.seconds}
    if settings.second == "steps":
        assert settings.threshold is not None  # Settings.check
        told["steps"] = steps_to(folder, settings.metric, settings.threshold, budget)
    return told
