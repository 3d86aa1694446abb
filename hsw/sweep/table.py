"""The table at the end of a sweep: a row per job, as text and as csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from hsw.output import one_line
from hsw.run.status import JobOutcome

COLUMNS = ("job", "status", "return", "steps", "seconds", "exit_code", "note")


def as_csv(outcomes: Sequence[JobOutcome]) -> str:
    """With every column."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in outcome.as_row().items()} for outcome in outcomes)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """What commands no terminal, and is no formula of a spreadsheet."""
    text = one_line(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(("=", "+", "-", "@")) else text


def as_text(outcomes: Sequence[JobOutcome]) -> str:
    """For a terminal."""
    formats: dict[str, str] = {"return": ".1f", "steps": ",", "seconds": ".1f"}
    cells = [[*COLUMNS[:5], "note"]]
    for row in (outcome.as_row() for outcome in outcomes):
        shown = {key: "" if row[key] is None else format(row[key], formats.get(key, "")) for key in COLUMNS}
        cells.append([shown[key] for key in cells[0]])
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = []
    for job, status, *figures, note in cells:
        right = [figure.rjust(width) for figure, width in zip(figures, widths[2:], strict=True)]
        lines.append("  ".join([job.ljust(widths[0]), status.ljust(widths[1]), *right, note]).rstrip())
    return "\n".join(lines)
