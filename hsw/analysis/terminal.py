"""A report for a terminal, as rich's tables."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsw.analysis.page.grid import Grid
from hsw.analysis.page.grids import common_grid, differences_grid, score_grids
from hsw.analysis.report_data import Report, Study
from hsw.analysis.tables import differing
from hsw.output import one_line

_NARROWEST, _WIDEST = 60, 200  # columns


def to_text(report: Report) -> str:
    """For people: what differs in a line, scores, and the runs to know about."""
    width = min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size((120, 24)).columns))
    console = Console(file=io.StringIO(), width=width, highlight=False, force_terminal=False, color_system=None)
    for number, study in enumerate(report.studies):
        _study(console, study, f"study-{number}", report)
    if len(report.studies) > 1 and (common := common_grid(report)):
        _grid(console, common)
    console.print(
        Text(
            f"Scores are the {report.metric} of the last evaluation, brackets 95 % intervals of a bootstrap over seeds,"
            " IQM the mean of the middle half. --format html makes a page with curves and each run."
        )
    )
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _study(console: Console, study: Study, name: str, report: Report) -> None:
    counted = sum(run.counted for run in study.runs)
    _line(console, f"{study.folder}: {len(study.runs)} runs, of which {counted} count")
    told = f"{len(study.varied)} keys, listed below" if report.keys else differing(study, False)
    _line(console, f"Differ in {told}")
    for note in study.notes:
        _line(console, f"Note: {note}")
    console.print()
    for place, table in enumerate(study.tables):
        for grid in score_grids(table, f"{name}-{place}"):
            _grid(console, grid)
    if report.keys and study.varied:
        _grid(console, differences_grid(study, name))
    rest = [run for run in study.runs if not run.counted or run.notes or run.status != "done"]
    if rest:
        rows = [
            (run.run, run.group or "-", run.status, "yes" if run.counted else "no", "; ".join(run.notes))
            for run in rest
        ]
        _table(console, "Runs to know about", ("run", "group", "status", "counted", "why"), rows)
    if study.curves:
        _line(console, f"Learning curves: {study.curves}")
        console.print()


def _grid(console: Console, grid: Grid) -> None:
    rows = [[cell.text for cell in row] for row in grid.rows]
    _table(console, grid.caption, grid.head, rows, [n for n in range(len(grid.head)) if n not in grid.words])
    for note in grid.notes:
        _line(console, f"- {note}")
    if grid.notes:
        console.print()


def _table(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> None:
    table = Table(title=_text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(head):
        options: dict[str, Any] = {"justify": "right"} if n in numbers else {"overflow": "fold"}
        table.add_column(_text(name), **options)
    for row in rows:
        table.add_row(*map(_text, row))
    console.print(table)


def _line(console: Console, text: str) -> None:
    console.print(_text(text), soft_wrap=True)


def _text(text: str) -> Text:
    """Text from files, that no part of it is markup or a terminal's command."""
    return Text(one_line(text))
