"""What a tuned study's folder has beside its runs: its trials."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from hsw.analysis.page.grid import Cell, Grid
from hsw.analysis.page.section import Section
from hsw.analysis.report_data import Study
from hsw.directory import read_file
from hsw.errors import CorruptError

_LARGEST = 2**22  # bytes
_MOST = 500  # trials that the page lists


def tuning(study: Study, name: str) -> Section | None:
    """The trials of hsw.tune, as its table trials.csv has them; None where there is none."""
    try:
        text = read_file(Path(study.folder), "trials.csv", _LARGEST).decode()
        head, *rows = csv.reader(io.StringIO(text))
    except (OSError, CorruptError, ValueError, csv.Error):  # its own report stands beside it
        return None
    rows = [row for row in rows if len(row) == len(head)]
    cells = [[_cell(text) for text in row] for row in rows[:_MOST]]
    words = frozenset(n for n in range(len(head)) if n == 0 or not any(row[n].figures for row in cells))
    for row in cells:
        for n in words:
            row[n] = Cell(row[n].text)
    notes = [f"{len(rows) - _MOST} more trials are in trials.csv"] if len(rows) > _MOST else []
    return Section(f"{name}-tuning", "Tuning", [Grid(f"{name}-trials", "Trials", head, cells, words, notes)])


def _cell(text: str) -> Cell:
    try:
        value = float(text)
    except ValueError:
        return Cell(text or "-")
    return Cell(text, (value,)) if math.isfinite(value) else Cell(text)
