"""What a report consists of, from the whole of it down to one group's row; `plain` makes JSON of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from hsw.analysis.estimates import Estimate
from hsw.analysis.groups import Group
from hsw.analysis.results import RunResult

_NOT_PLAIN = {"plain": False}  # what the rest was made of, for forms that show more


@dataclass
class Reached:
    """When a group's runs reached the threshold.

    Attributes:
        runs, of: How many of them did.
        steps, seconds: Of the median run; None if it did not.
    """

    runs: int
    of: int
    steps: float | None
    seconds: float | None


@dataclass
class GroupRow:
    """A group's figures.

    Attributes:
        group: Its label.
        seeds: Those that count on every task.
        not_counted: Runs that do not.
        mean, median, iqm, optimality_gap: Of the last evaluations; None without a seed.
        steps, seconds, speed: Of the median run.
        reached: None where no threshold was asked for.
    """

    group: str
    seeds: list[int]
    not_counted: int
    mean: Estimate | None
    median: Estimate | None
    iqm: Estimate | None
    optimality_gap: Estimate | None
    steps: float | None
    seconds: float | None
    speed: float | None
    reached: Reached | None


@dataclass
class Improvement:
    """The probability, with its interval, that a run of one group scores higher than one of another."""

    group: str
    over: str
    value: float
    low: float | None
    high: float | None

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.low, self.high)


@dataclass
class Table:
    """Groups side by side on some environments.

    Attributes:
        envs: The tasks.
        metric: What the scores are.
        ranges: Scores that became 0 and 1, [low, high] by environment.
        gamma: What the optimality gap is measured from.
        threshold, threshold_of: Asked for, and whether it is of evaluations or of training.
        groups, improvement: The figures.
        notes: What a reader has to know.
    """

    envs: list[str]
    metric: str
    ranges: dict[str, list[float]]
    gamma: float | None
    threshold: float | None
    threshold_of: Literal["evaluations", "training"]
    groups: list[GroupRow]
    improvement: list[Improvement]
    notes: list[str]


@dataclass
class RunRow:
    """One run folder; attributes as in RunResult. `counted` says whether it enters the figures of its group."""

    run: str
    group: str | None
    env: str | None
    seed: int | None
    status: str
    counted: bool
    steps: int | None
    budget: int | None
    seconds: float | None
    speed: float | None
    score: float | None
    notes: list[str]
    verified: str | None = None


@dataclass
class Study:
    """Runs that belong together.

    Attributes:
        folder: Where they are.
        envs: Theirs.
        varied: Values of each key that varied besides the seed.
        versions: Of what they ran with.
        command: That made all of them, if it was one.
        notes: What a reader has to know.
        tables: One over all environments, or one for each.
        runs: All of them, counted or not.
        curves: Path of their learning curves.
        presets: Whose values each group took, by its label, where its runs say so.
        results, groups: What the runs left, in the order of `runs`, and how they were grouped.
    """

    folder: str
    envs: list[str]
    varied: dict[str, list[str]]
    versions: dict[str, list[str]]
    command: str | None
    notes: list[str]
    tables: list[Table]
    runs: list[RunRow]
    curves: str | None = None
    presets: dict[str, list[str]] = field(default_factory=dict)
    results: list[RunResult] = field(default_factory=list, metadata=_NOT_PLAIN)
    groups: list[Group] = field(default_factory=list, metadata=_NOT_PLAIN)

    @property
    def drawn_envs(self) -> list[str]:
        """Environments with a run that counts."""
        return [env for env in self.envs if any(group.counted.get(env) for group in self.groups)]


@dataclass
class Report:
    """The studies, and what was asked: the metric, a threshold, resamples and seed of the bootstrap."""

    metric: str
    threshold: float | None
    reps: int
    seed: int
    studies: list[Study]
    command: str | None = None  # that made it
    keys: bool = field(default=False, metadata=_NOT_PLAIN)  # also list every key that differs


def plain(report: Report) -> dict[str, Any]:
    """A report as JSON has it."""
    told: dict[str, Any] = _plain(report)
    if report.command is None:
        del told["command"]
    for study in told["studies"]:
        if not study["presets"]:
            del study["presets"]
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value._asdict()
    if dataclasses.is_dataclass(value):
        parts = [part.name for part in dataclasses.fields(value) if part.metadata.get("plain", True)]
        return {name: _plain(getattr(value, name)) for name in parts}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
