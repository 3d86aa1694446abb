"""The figures of a study's groups side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hsw.analysis.curves import has_curve, points_of
from hsw.analysis.estimates import aggregate, normalise, probability_of_improvement
from hsw.analysis.groups import Group
from hsw.analysis.report_data import GroupRow, Improvement, Reached, Table
from hsw.analysis.results import RunResult
from hsw.analysis.score_ranges import Ranges

_ALL_PAIRS = 4  # groups; with more of them, each is compared with the first only


def compare(
    all_groups: Sequence[Group],
    envs: Sequence[str],
    ranges: Ranges,
    metric: str,
    threshold: float | None,
    reps: int,
    seed: int,
) -> Table:
    """The groups' figures on one environment, or over several as tasks.

    Args:
        all_groups: The study's; those that have no run on these environments are left out.
        envs: The tasks.
        ranges: Scores that become 0 and 1; of all of the tasks or of none.
        metric: What the scores are.
        threshold: In the scores' unit, normalised where they are.
        reps, seed: Of the bootstrap.

    Returns:
        A row per group, the probabilities of improvement, and what a reader has to know.
    """
    groups = [group for group in all_groups if any(env in group.counted for env in envs)]
    gamma = 1.0 if ranges else threshold
    everyone = [run for group in groups for env in envs for run in group.counted.get(env, {}).values()]
    evaluations = has_curve(everyone)
    scores = {n: scores_of(group, envs, ranges) for n, group in enumerate(groups)}
    most = {s for group in groups for s in group.seeds(envs)}
    notes: list[str] = []
    rows: list[GroupRow] = []
    for n, group in enumerate(groups):
        seeds, score = group.seeds(envs), scores[n]
        used = [group.counted[env][one] for env in envs for one in seeds]
        figures = aggregate(score, reps, seed, gamma) if seeds else {}
        rows.append(
            GroupRow(
                group=group.label,
                seeds=seeds,
                not_counted=sum(len(group.left_out.get(env, ())) for env in envs),
                mean=figures.get("mean"),
                median=figures.get("median"),
                iqm=figures.get("iqm"),
                optimality_gap=figures.get("optimality_gap"),
                steps=statistics.median(run.steps or 0 for run in used) if used else None,
                seconds=_median([run.seconds for run in used]),
                speed=_median([run.speed for run in used if run.speed is not None]),
                reached=None if threshold is None else _reached(used, threshold, ranges, evaluations),
            )
        )
        if not seeds and len(envs) > 1:
            notes.append(f"{group.label} has no seed that counts on every task, so no figures over them")
        elif not seeds:
            notes.append(f"{group.label} has no run that counts")
        elif set(seeds) != most:
            notes.append(f"{group.label} has the seeds {_list(seeds)} of {_list(sorted(most))}")
        if len(seeds) == 1:
            notes.append(f"{group.label} has one seed, so no intervals")
    ended = sum(run.status == "done" for run in everyone)
    if ended < len(everyone):
        notes.append(f"{len(everyone) - ended} of {len(everyone)} runs did not end and count as last evaluated")
    budgets = sorted({run.budget or 0 for run in everyone})
    if len(budgets) > 1:
        notes.append(f"the runs had different budgets: {_list(f'{budget:,}' for budget in budgets)} steps")
    filled = [n for n in scores if groups[n].seeds(envs)]
    pairs = [(x, y) for y in filled for x in filled if y < x and (len(filled) <= _ALL_PAIRS or y == filled[0])]
    return Table(
        envs=list(envs),
        metric=metric,
        ranges={env: list(ends) for env, ends in ranges.items()},
        gamma=gamma,
        threshold=threshold,
        threshold_of="evaluations" if evaluations else "training",
        groups=rows,
        improvement=[
            Improvement(groups[x].label, groups[y].label, *probability_of_improvement(scores[x], scores[y], reps, seed))
            for x, y in pairs
        ],
        notes=notes,
    )


def scores_of(group: Group, envs: Sequence[str], ranges: Ranges) -> np.ndarray:
    """Last evaluations of the seeds that are counted on every task, normalised where ranges are, [seeds, tasks]."""
    scores = [[group.counted[env][one].score for env in envs] for one in group.seeds(envs)]
    low, high = np.array([ranges.get(env, (0.0, 1.0)) for env in envs]).T
    return normalise(np.array(scores, float).reshape(-1, len(envs)), low, high)


def _reached(runs: Sequence[RunResult], threshold: float, ranges: Ranges, evaluations: bool) -> Reached:
    """How many runs reached a threshold, and when the median run did first; one that did not is later than all."""
    firsts = []
    for run in runs:
        low, high = ranges.get(run.env or "", (0.0, 1.0))
        points = points_of(run, evaluations)
        solved = normalise(np.array([point.value for point in points]), low, high) >= threshold
        firsts.append(points[int(solved.argmax())] if solved.any() else None)
    return Reached(
        runs=sum(first is not None for first in firsts),
        of=len(firsts),
        steps=_median([first and first.step for first in firsts]),
        seconds=_median([first and first.seconds for first in firsts]),
    )


def _median(values: Sequence[float | None]) -> float | None:
    median = statistics.median(math.inf if value is None else value for value in values) if values else math.inf
    return median if math.isfinite(median) else None


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values)) or "none"
