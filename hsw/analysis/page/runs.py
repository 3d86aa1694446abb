"""One part of the page for each run."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass

import numpy as np

from hsw.analysis.figures import number, steps_of, time_of
from hsw.analysis.page.folder import Told
from hsw.analysis.page.grid import Grid, number_cell, text_cells
from hsw.analysis.page.series import Series
from hsw.analysis.report_data import RunRow, Study
from hsw.analysis.results import RunResult

_FAILED = ("failed", "damaged", "missing")


@dataclass
class RunPart:
    """What the page shows of a run.

    Attributes:
        name: Of its place on the page.
        row: Its row of the report.
        score, steps, time: In words.
        facts: Names and values.
        changed: Keys that differ from the most common value in its study.
        config: One line for each key.
        metrics: First, last, lowest and highest value of each, by the part before the slash.
        told: What else its folder has.
        verified: What a certificate says.
        commands: What to type next, by what it is for.
        failed: Whether it ended with an error.
    """

    name: str
    row: RunRow
    score: str
    steps: str
    time: str
    facts: list[tuple[str, str]]
    changed: list[tuple[str, str]]
    config: str
    metrics: list[Grid]
    told: Told
    verified: str
    commands: list[tuple[str, str]]
    failed: bool


def common_values(study: Study) -> dict[str, str]:
    """The most common value of each key that not all runs have alike."""
    configs = [run.config for run in study.results if run.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    counts = {key: Counter(config.get(key, "-") for config in configs) for key in keys}
    return {key: count.most_common(1)[0][0] for key, count in counts.items() if len(count) > 1}


def run_part(
    name: str, row: RunRow, result: RunResult, study: Study, common: dict[str, str], series: Series, told: Told
) -> RunPart:
    """Put a run's part together."""
    folder = shlex.quote(str(result.path))
    commands = [("go on with it", f"python -m hsw.train resume={folder}")] if row.status != "done" else []
    commands += [
        ("evaluate it", f"python -m hsw.eval {folder}"),
        ("run it again, changed", f"python -m hsw.train from={folder} seed=7"),
    ]
    commands += [("run it from the start", result.command)] if result.command else []
    steps = f"{steps_of(row.steps)} of {row.budget:,}" if row.budget is not None else steps_of(row.steps)
    facts = [("folder", str(result.path)), ("group", row.group), ("environment", row.env), ("seed", row.seed)]
    facts += [("steps", steps), ("time", time_of(row.seconds)), ("steps/s", steps_of(row.speed))]
    facts += [("preset", result.preset)]
    facts += [(key, value) for key, value in result.versions.items() if len(study.versions.get(key, ())) > 1]
    verified = getattr(row, "verified", None) or told.verified
    return RunPart(
        name=name,
        row=row,
        score=number(row.score),
        steps=steps_of(row.steps),
        time=time_of(row.seconds),
        facts=[(key, str(value)) for key, value in facts if value is not None],
        changed=[(key, result.config[key]) for key, value in common.items() if result.config.get(key, value) != value],
        config="\n".join(f"{key}: {value}" for key, value in result.config.items()),
        metrics=_metrics(name, series),
        told=told,
        verified=verified,
        commands=commands,
        failed=row.status in _FAILED,
    )


def _metrics(name: str, series: Series) -> list[Grid]:
    """The metrics' figures by the part of their name before the slash, those of evaluations first."""
    grids: dict[str, Grid] = {}
    first = ("eval", "train")
    order = {part: number for number, part in enumerate(first)}
    for metric in sorted(series.metrics, key=lambda metric: (order.get(metric.partition("/")[0], len(first)), metric)):
        group = metric.partition("/")[0] if "/" in metric else "other"
        head = ["metric", "rows", "first", "last", "lowest", "highest"]
        grid = grids.setdefault(group, Grid(f"{name}-{len(grids)}", group, head, []))
        values = np.array(series.metrics[metric][1])
        figures = (values[0], values[-1], values.min(), values.max())
        grid.rows.append([*text_cells([metric, f"{len(values):,}"]), *(number_cell(float(one)) for one in figures)])
    return list(grids.values())
