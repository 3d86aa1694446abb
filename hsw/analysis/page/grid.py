"""A table of the page, and the same as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hsw.analysis.estimates import Estimate
from hsw.analysis.figures import interval, number, steps_of, time_of
from hsw.analysis.tables import spreadsheet_safe

_LATEX = {char: f"\\{char}" for char in "{}$&#_%"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
}


class Cell(NamedTuple):
    """A text, and of a figure the number itself, with its interval if it has one."""

    text: str
    figures: tuple[float | None, ...] = ()


def estimate_cell(estimate: Estimate | None) -> Cell:
    return Cell(interval(estimate), tuple(estimate) if estimate else (None, None, None))


def steps_cell(steps: float | None) -> Cell:
    return Cell(steps_of(steps), (steps,))


def time_cell(seconds: float | None) -> Cell:
    return Cell(time_of(seconds), (seconds,))


def number_cell(value: float | None) -> Cell:
    return Cell(number(value), (value,))


def text_cells(texts: Sequence[str | None]) -> list[Cell]:
    return [Cell("-" if text is None or text == "" else text) for text in texts]


@dataclass
class Grid:
    """Rows of cells; the first of each is its head.

    Attributes:
        name: Of the table, as its anchor has it.
        caption: What it is.
        head: Of each column.
        rows: Its cells.
        words: Columns that are no numbers.
        notes: What a reader has to know.
    """

    name: str
    caption: str
    head: list[str]
    rows: list[list[Cell]]
    words: frozenset[int] = frozenset({0})
    notes: list[str] = field(default_factory=list)

    @property
    def csv(self) -> str:
        """For spreadsheets: numbers as they are, intervals in columns of their own, and no cell that is a formula."""
        widths = [max((len(row[n].figures) for row in self.rows), default=0) for n in range(len(self.head))]
        head = [name for name, width in zip(self.head, widths, strict=True) for name in _names(name, width)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(spreadsheet_safe(name) for name in head)
        for row in self.rows:
            columns = zip(row, widths, strict=True)
            writer.writerow(part for cell, width in columns for part in _parts(cell, width))
        return text.getvalue()

    @property
    def latex(self) -> str:
        """For a paper that uses the package booktabs."""
        columns = "".join("l" if number in self.words else "r" for number in range(len(self.head)))
        head, *rows = (" & ".join(map(latex_text, row)) + r" \\" for row in self._texts())
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
        return "\n".join([*lines, r"\end{tabular}"]) + "\n"

    def _texts(self) -> list[list[str]]:
        return [self.head, *([cell.text for cell in row] for row in self.rows)]


def _names(name: str, width: int) -> list[str]:
    return [name, f"{name} low", f"{name} high"] if width == 3 else [name]


def _parts(cell: Cell, width: int) -> list[str | float | None]:
    if not width:
        return [spreadsheet_safe("" if cell.text == "-" else cell.text)]
    return [*cell.figures, *[None] * (width - len(cell.figures))]


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(char, char) if char.isprintable() else " " for char in text)
