"""Every metric of a run over time, thinned so that what stands out stays."""

from __future__ import annotations

import base64
import json
import math
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hsw.directory import Directory, lines_of

_MAX_METRICS = 500  # of a run; a file that names more is no run's
_LARGEST = 1e30  # what a float of four bytes holds


@dataclass
class Series:
    """A run's rows.

    Attributes:
        steps: Environment steps of each row.
        seconds: Of running, NaN where a row does not say.
        metrics: By name, the rows that have it and its values there.
    """

    steps: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    metrics: dict[str, tuple[array[int], array[float]]] = field(default_factory=dict)


def read_series(path: Path) -> Series:
    """Read a run's metrics.jsonl; rows that are none are passed over, and a file that cannot be read has none."""
    series = Series()
    try:
        with (
            Directory.open(path) as directory,
            os.fdopen(directory.open_file("metrics.jsonl", os.O_RDONLY), "rb") as file,
        ):
            for line in lines_of(file):
                _add(series, line)
    except (OSError, ValueError):  # the report's own reading has told of it
        pass
    return series


def _add(series: Series, line: bytes) -> None:
    try:
        row = json.loads(line)
        step, seconds = float(row["step"]), _number(row.get("time"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return
    number = len(series.steps)
    series.steps.append(step)
    series.seconds.append(math.nan if seconds is None else seconds)
    for name, value in row.items():
        figure = None if name in ("step", "time") else _number(value)
        if figure is not None and (name in series.metrics or len(series.metrics) < _MAX_METRICS):
            rows, values = series.metrics.setdefault(name, (array("I"), array("d")))
            rows.append(number)
            values.append(figure)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value)


def thin(values: np.ndarray, most: int) -> np.ndarray:
    """Which of a curve's points to keep: the first, the last, and of each stretch the lowest and the highest.

    Args:
        values: Of the curve, [points], not empty.
        most: About how many to keep, at least 4.

    Returns:
        Their places, rising.
    """
    if len(values) <= most:
        return np.arange(len(values))
    size = -(-len(values) // (most // 2 - 1))
    stretches = np.pad(values, (0, -len(values) % size), mode="edge").reshape(-1, size)
    begin = np.arange(len(stretches)) * size
    kept = [begin + stretches.argmin(1), begin + stretches.argmax(1), [0, len(values) - 1]]
    return np.unique(np.minimum(np.concatenate(kept), len(values) - 1))


def packed(series: Series, most: int) -> dict[str, Any]:
    """What the page's script reads: rows and values as base64 of little-endian numbers.

    Args:
        series: A run's.
        most: Points to keep of each metric.
    """
    kept = {}
    for name, (rows, values) in series.metrics.items():
        places = thin(np.array(values), most)
        kept[name] = np.array(rows)[places], np.array(values)[places]
    used = np.unique(np.concatenate([rows for rows, _ in kept.values()])) if kept else np.array([], int)
    return {
        "steps": _base64(np.array(series.steps)[used], "<f8"),
        "seconds": _base64(np.array(series.seconds)[used], "<f4"),
        "metrics": {
            name: [_base64(np.searchsorted(used, rows), "<u4" if len(used) > 65535 else "<u2"), _base64(values, "<f4")]
            for name, (rows, values) in kept.items()
        },
        "wide": len(used) > 65535,
    }


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()
