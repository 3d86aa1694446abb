"""What the page's charts are drawn from."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hsw.analysis.comparison import scores_of
from hsw.analysis.curves import band, has_curve, picture, points_of
from hsw.analysis.groups import Group
from hsw.analysis.profiles import profiles
from hsw.analysis.report_data import Report, Study
from hsw.analysis.results import METRICS, Point
from hsw.errors import ConfigError


@dataclass
class Chart:
    """A place for a chart on the page, and what is drawn there.

    Attributes:
        name: Of the place.
        title, about: In words.
        groups: Their labels.
        data: For the page's script.
    """

    name: str
    title: str
    about: str
    groups: list[str]
    data: dict[str, Any]


def learning_curves(study: Study, name: str, ids: dict[str, str], report: Report) -> list[Chart]:
    """A chart for each environment with runs that count.

    Args:
        study: Whose runs they are.
        name: Prefix of the charts' names.
        ids: Of each run's page, by the run's name.
        report: What was asked for.
    """
    charts = []
    for number, env in enumerate(study.drawn_envs):
        runs = [run for group in study.groups for run in group.counted.get(env, {}).values()]
        evaluations = has_curve(runs)
        source = "evaluations" if evaluations else "mean of the last 100 training episodes"
        key = METRICS[report.metric][0 if evaluations else 1]
        groups = []
        for index, group in enumerate(study.groups):
            counted = group.counted.get(env, {})
            curves = [curve for run in counted.values() if (curve := points_of(run, evaluations))]
            if curves:
                bands = {axis: _band(curves, axis, report.seed) for axis in ("step", "seconds")}
                members = [[seed, ids[run.name]] for seed, run in counted.items()]
                groups.append({"label": group.label, "colour": index, "bands": bands, "runs": members})
        if not groups:
            continue
        about = f"{report.metric}, {source}. Lines are means over seeds, bands 95 % intervals of a bootstrap over them."
        data = {"kind": "curves", "metric": key, "groups": groups}
        labels = [str(group["label"]) for group in groups]
        charts.append(Chart(f"{name}-curves-{number}", env, about[0].upper() + about[1:], labels, data))
    return charts


def _band(curves: Sequence[Sequence[Point]], axis: Literal["step", "seconds"], seed: int) -> list[list[float]] | None:
    """x, mean, low and high; None if the points do not say when they were."""
    timed = [[point for point in curve if point.seconds is not None] for curve in curves]
    if axis == "seconds" and not all(timed):
        return None
    return [_rounded(values) for values in band(timed if axis == "seconds" else curves, seed, axis)]


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values if math.isfinite(value)]


def profile_charts(study: Study, name: str, report: Report) -> list[Chart]:
    """A chart for each table of scores in which a group has more than one run."""
    charts = []
    for number, table in enumerate(study.tables):
        ranges = {env: (low, high) for env, (low, high) in table.ranges.items()}
        filled: list[tuple[int, Group]] = [(n, one) for n, one in enumerate(study.groups) if one.seeds(table.envs)]
        scores = [scores_of(group, table.envs, ranges) for _, group in filled]
        if not any(len(some) > 1 or some.size > 1 for some in scores):
            continue
        groups = [
            {
                "label": group.label,
                "colour": index,
                "band": [_rounded(v) for v in (profile.levels, profile.share, profile.low, profile.high)],
            }
            for (index, group), profile in zip(filled, profiles(scores, report.reps, report.seed), strict=True)
        ]
        over = table.envs[0] if len(table.envs) == 1 else f"{len(table.envs)} environments"
        data = {"kind": "profiles", "groups": groups}
        about = (
            f"The share of runs whose {table.metric} is above each level{', normalised' * bool(ranges)}; "
            "bands are 95 % intervals of a bootstrap over seeds, stratified by environment. Higher is better."
        )
        charts.append(Chart(f"{name}-profile-{number}", over, about, [group.label for _, group in filled], data))
    return charts


def still(study: Study, title: str, report: Report) -> str | None:
    """The learning curves as a picture within the page, for where no script runs; None without matplotlib."""
    if not study.drawn_envs:
        return None
    try:
        drawn = picture(study.groups, study.drawn_envs, report.metric, title, report.seed)
    except ConfigError:
        return None
    return f"data:image/png;base64,{base64.b64encode(drawn).decode()}"
