"""A part of the page that some kinds of folders bring."""

from __future__ import annotations

from dataclasses import dataclass, field

from hsw.analysis.page.charts import Chart
from hsw.analysis.page.grid import Grid


@dataclass
class Section:
    """A part of a study's page that some kinds of folders have.

    Attributes:
        name, title: Of the section.
        grids, charts: What is in it.
        notes: What a reader has to know.
    """

    name: str
    title: str
    grids: list[Grid] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
