"""Studies for tests: the command with jobs that only write what a run would leave, and what a study left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hsw import tune
from hsw.run.status import JobOutcome
from hsw.tuning import findings, tuner
from tests.runs import Result, call

LR = "algorithm.lr=tag(log, interval(1e-4, 1e-2))"
COMMON = ("agent=ppo", "env=cartpole", "num_train_steps=4000", "tune.confirm=0")
Objective = Callable[[dict[str, str], int], float | Exception]  # of a run's overrides and its budget


class Killed(BaseException):
    """Ends a study where a SIGKILL would."""


def peak(overrides: dict[str, str], budget: int) -> float:
    """Best at a step size of 0.001; a little of it is the seed's."""
    return budget / 100 - abs(float(overrides["algorithm.lr"]) - 1e-3) * 1e4 + float(overrides["seed"])


class FakeJobs:
    """Jobs that take no time: each leaves metrics of an objective, and is counted.

    Args:
        objective: What the last evaluation comes to.
        until: The job at which the study is killed.
        after: It is killed once the job is done, instead of before.
    """

    def __init__(self, objective: Objective, until: int | None = None, after: bool = False) -> None:
        self.objective, self.until, self.after = objective, until, after
        self.ran: list[tuple[str, int]] = []

    def __call__(self, folder: Path) -> FakeJobs:
        self.folder = folder
        return self

    def run(self, slot: int, overrides: Sequence[str], folder: Path) -> JobOutcome:
        if len(self.ran) == self.until and not self.after:
            raise Killed
        told = dict(override.split("=", 1) for override in overrides)
        budget = int(told["num_train_steps"])
        self.ran.append((str(folder.relative_to(self.folder)), budget))
        value = self.objective(told, budget)
        if isinstance(value, Exception):
            return JobOutcome("failed", 4, note=str(value))
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": budget, "time": 1.0, "eval/return_mean": value}) + "\n")
        if len(self.ran) - 1 == self.until and self.after:
            raise Killed
        return JobOutcome("done", 0, score=value, steps=budget, seconds=1.0)

    def stopped(self) -> bool:
        return False

    def stop(self, signum: int) -> None: ...

    def close(self) -> None: ...


def study(
    patch: pytest.MonkeyPatch,
    folder: Path,
    jobs: FakeJobs,
    *arguments: str,
    draws: bool = False,
    anew: tuple[str, ...] = (),
) -> Result:
    """Run a study's command with these jobs."""
    patch.setattr(tuner, "Jobs", jobs)
    patch.setattr(tuner, "check_space", lambda *_: anew)  # has tests of its own, and takes longest
    if not draws:
        patch.setattr(findings, "_draw", lambda *_: False)
        patch.setattr(tuner, "write_best", lambda *_: "")
    return call(*COMMON, f"tune.dir={folder}", "tune.name=s", *arguments, main=tune.cli)


def table(result: Result) -> list[str]:
    """The rows of the study's table."""
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("trial  "))
    return lines[begin : lines.index("", begin)]


def states(folder: Path) -> list[str]:
    """The states of a study's trials."""
    rows = (folder / "s" / "trials.csv").read_text().splitlines()[1:]
    return [row.split(",")[1] for row in rows]


def journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of a study's journal."""
    return [json.loads(line) for line in (folder / "s" / "journal.jsonl").read_bytes().splitlines()]
