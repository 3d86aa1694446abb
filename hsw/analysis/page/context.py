"""From a report to what the page's templates show."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsw.analysis.page.charts import Chart, learning_curves, profile_charts, still
from hsw.analysis.page.folder import read_folder
from hsw.analysis.page.grid import Grid
from hsw.analysis.page.grids import common_grid, differences_grid, runs_grid, score_grids, versions_grid
from hsw.analysis.page.runs import RunPart, common_values, run_part
from hsw.analysis.page.section import Section
from hsw.analysis.page.series import packed, read_series
from hsw.analysis.page.tuning import tuning
from hsw.analysis.report_data import Report, Study

_METRIC_BYTES = 4_500_000  # of all runs' curves together
_BYTES_A_POINT = 8.1  # a row of two bytes and a value of four, in base64, between quotes
_VIDEO_BYTES = 1_500_000  # of all videos within the page together
_FEW_KEYS = 10  # of those that differ; more are folded


# What else a study's folder may hold: each reads it, and returns a section if there is something.
SECTIONS: list[Callable[[Study, str], Section | None]] = [tuning]


@dataclass
class StudyPart:
    """What the page shows of a study."""

    name: str
    title: str
    study: Study
    statuses: list[tuple[str, int]]
    commands: list[tuple[str, str]]
    versions: Grid
    scores: list[Grid]
    profiles: list[Chart]
    curves: list[Chart]
    still: str | None
    differences: Grid
    few: Grid
    sections: list[Section]
    runs: list[RunPart]
    table: Grid

    @property
    def failures(self) -> list[RunPart]:
        return [run for run in self.runs if run.failed]

    @property
    def certified(self) -> list[RunPart]:
        return [run for run in self.runs if run.verified]


def context(report: Report, folder: Path, watch: float | None, pictures: bool) -> dict[str, Any]:
    """What the templates show, and the data for the page's script.

    Args:
        report: With what it was made of.
        folder: In which the page will lie.
        watch: Seconds after which it will be written again.
        pictures: Whether the curves are also pictures.
    """
    every = [read_series(result.path) for study in report.studies for result in study.results]
    curves = sum(len(series.metrics) for series in every)
    most = int(min(400, max(8, _METRIC_BYTES / _BYTES_A_POINT / max(1, curves))))
    room = _VIDEO_BYTES
    studies, runs = [], {}
    series_of = iter(every)
    for number, study in enumerate(report.studies):
        name, common, parts = f"study-{number}", common_values(study), []
        ids = {run.run: f"run-{number}-{place}" for place, run in enumerate(study.runs)}
        for row, result in zip(study.runs, study.results, strict=True):
            series, told = next(series_of), read_folder(result.path, folder, room)
            room -= sum(len(video.data) for video in told.videos if video.data)
            runs[ids[row.run]] = packed(series, most)
            parts.append(run_part(ids[row.run], row, result, study, common, series, told))
        studies.append(_study(study, name, ids, parts, report, pictures))
    charts = [chart for study in studies for chart in _charts(study)]
    return {
        "title": ", ".join(study.title for study in studies),
        "report": report,
        "studies": studies,
        "common": common_grid(report),
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "watch": watch,
        "data": {"charts": {chart.name: chart.data for chart in charts}, "runs": runs, "watch": watch},
    }


def _charts(study: StudyPart) -> list[Chart]:
    return [*study.curves, *study.profiles, *(chart for section in study.sections for chart in section.charts)]


def _study(
    study: Study, name: str, ids: dict[str, str], parts: list[RunPart], report: Report, pictures: bool
) -> StudyPart:
    title = Path(study.folder).absolute().name or study.folder
    folder = shlex.quote(study.folder)
    commands = [("run it again; what is done is skipped", study.command)] if study.command else []
    commands += [("compare its runs", f"python -m hsw.report {folder}")]
    differences = differences_grid(study, name)
    few = Grid(differences.name, differences.caption, differences.head, differences.rows[:_FEW_KEYS], differences.words)
    return StudyPart(
        name=name,
        title=title,
        study=study,
        statuses=Counter(run.status for run in study.runs).most_common(),
        commands=commands,
        versions=versions_grid(study, name),
        scores=[grid for n, table in enumerate(study.tables) for grid in score_grids(table, f"{name}-{n}")],
        profiles=profile_charts(study, name, report),
        curves=learning_curves(study, name, ids, report),
        still=still(study, title, report) if pictures else None,
        differences=differences,
        few=few,
        sections=[section for make in SECTIONS if (section := make(study, name)) is not None],
        runs=parts,
        table=runs_grid(study, name),
    )
