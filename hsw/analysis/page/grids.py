"""The page's tables, out of a report's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hsw.analysis.estimates import aggregate
from hsw.analysis.figures import number
from hsw.analysis.groups import Group, group_runs, short_value
from hsw.analysis.page.grid import Cell, Grid, estimate_cell, number_cell, steps_cell, text_cells, time_cell
from hsw.analysis.report_data import Report, Study, Table


def score_grids(table: Table, name: str) -> list[Grid]:
    """A table's figures, and its probabilities of improvement if there are groups to compare."""
    over = table.envs[0] if len(table.envs) == 1 else f"{len(table.envs)} environments"
    scale = ", normalised" if table.ranges else ""
    head = ["group", "seeds", "mean", "median", "IQM"]
    head += [f"optimality gap to {number(table.gamma)}"] if table.gamma is not None else []
    head += ["steps", "time", "steps/s"]
    if table.threshold is not None:
        level = number(table.threshold)
        head += [f"steps to {level}", f"time to {level}", "reached by"]
    rows = []
    for row in table.groups:
        more = f" (+{row.not_counted} not counted)" if row.not_counted else ""
        cells = [Cell(row.group), Cell(f"{len(row.seeds)}{more}")]
        cells += [estimate_cell(one) for one in (row.mean, row.median, row.iqm)]
        cells += [estimate_cell(row.optimality_gap)] if table.gamma is not None else []
        cells += [steps_cell(row.steps), time_cell(row.seconds), steps_cell(row.speed)]
        if row.reached is not None:
            reached = row.reached
            cells += [steps_cell(reached.steps), time_cell(reached.seconds), Cell(f"{reached.runs} of {reached.of}")]
        rows.append(cells)
    notes = [f"{env}: 0 is {number(low)} and 1 is {number(high)}" for env, (low, high) in table.ranges.items()]
    if table.threshold is not None:
        source = "evaluation" if table.threshold_of == "evaluations" else "mean of the last 100 training episodes"
        notes.append(f"the threshold counts as reached at the first {source} of at least {number(table.threshold)}")
    grids = [Grid(f"{name}-scores", f"{over}: {table.metric}{scale}", head, rows, notes=notes + table.notes)]
    if table.improvement:
        pairs = [[Cell(pair.group), Cell(pair.over), estimate_cell(pair.estimate)] for pair in table.improvement]
        words = frozenset({0, 1})
        caption = f"{over}: probability of improvement"
        grids.append(Grid(f"{name}-better", caption, ["a run of", "beats one of", "probability"], pairs, words))
    return grids


def runs_grid(study: Study, name: str) -> Grid:
    """Each run, counted or not."""
    rows = []
    for run in study.runs:
        cells = text_cells([run.run, run.group, run.env, None if run.seed is None else str(run.seed), run.status])
        cells += [Cell("yes" if run.counted else "no"), steps_cell(run.steps), time_cell(run.seconds)]
        rows.append([*cells, number_cell(run.score), *text_cells(["; ".join(run.notes)])])
    head = ["run", "group", "environment", "seed", "status", "counted", "steps", "time", "score", "notes"]
    return Grid(f"{name}-runs", "Runs", head, rows, frozenset({0, 1, 2, 4, 5, 9}))


def versions_grid(study: Study, name: str) -> Grid:
    """What the runs ran with and on."""
    rows = [text_cells([key, "; ".join(values)]) for key, values in study.versions.items()]
    computed = {
        key: list(dict.fromkeys(run.config[key] for run in study.results if key in run.config))
        for key in ("device", "threads")
    }
    rows += [text_cells([key, "; ".join(values)]) for key, values in computed.items() if values]
    return Grid(f"{name}-versions", "Code, machine and versions", ["what", "which"], rows, frozenset({0, 1}))


def differences_grid(study: Study, name: str) -> Grid:
    """What differs between the groups: the values of each key that varied; several where a group has more than one."""
    label_of = {run.run: run.group for run in study.runs}
    labels = list(dict.fromkeys(group.label for group in study.groups))
    configs = {label: [run.config for run in study.results if label_of[run.name] == label] for label in labels}
    rows = []
    for key, all_values in study.varied.items():
        cells = [Cell(key)]
        for label in labels:
            values = dict.fromkeys(short_value(key, config.get(key, "-"), all_values) for config in configs[label])
            cells.append(Cell(" or ".join(values) or "-"))
        rows.append(cells)
    words = frozenset(range(len(labels) + 1))
    return Grid(f"{name}-differences", "Keys by group", ["key", *labels], rows, words)


def common_grid(report: Report) -> Grid | None:
    """Environments x groups over all studies, the groups told apart anew; None where there would be one cell."""
    runs = [
        replace(run, name=f"{number} {run.name}", notes=[])
        for number, study in enumerate(report.studies)
        for run in study.results
    ]
    counted = {
        f"{number} {run.run}" for number, study in enumerate(report.studies) for run in study.runs if run.counted
    }
    groups, _ = group_runs([run for run in runs if run.name in counted], unfinished=True)
    envs = sorted({env for group in groups for env, seeds in group.counted.items() if seeds})
    groups = [group for group in groups if any(group.counted.values())]
    if len(envs) * len(groups) < 2:
        return None
    rows = [[Cell(env), *(_mean(group, env, report) for group in groups)] for env in envs]
    notes = [f"mean {report.metric} of the last evaluations with its 95 % interval, not normalised"]
    if len(report.studies) > 1:
        notes.append("runs of one configuration and seed in two studies count once")
    return Grid(
        "environments", "Environments and groups", ["environment", *(g.label for g in groups)], rows, notes=notes
    )


def _mean(group: Group, env: str, report: Report) -> Cell:
    scores: Sequence[float | None] = [run.score for run in group.counted.get(env, {}).values()]
    if not scores:
        return estimate_cell(None)
    return estimate_cell(aggregate(np.array(scores, float)[:, None], report.reps, report.seed)["mean"])
