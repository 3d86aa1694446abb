"""Figures as people read them."""

from __future__ import annotations

from hsw.analysis.estimates import Estimate


def number(value: float | None) -> str:
    """Four digits that matter."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def interval(estimate: Estimate | None) -> str:
    """A value and its 95 % interval."""
    if estimate is None:
        return "-"
    if estimate.low is None:
        return f"{number(estimate.value)} (one seed)"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def steps_of(steps: float | None) -> str:
    """A count."""
    return "-" if steps is None else f"{steps:,.0f}"


def time_of(seconds: float | None) -> str:
    """A span of time in the unit that suits it."""
    if seconds is None:
        return "-"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
