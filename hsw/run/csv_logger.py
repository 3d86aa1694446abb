"""A copy of the metrics as a table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hsw.directory import lines_of
from hsw.run.logger import Logger


class CsvLogger(Logger):
    """metrics.csv in the run folder: a row for each of metrics.jsonl, a column for each name.

    The columns are step, time and then the others in the order in which they appear first. When a row has a new one the
    file is written anew from metrics.jsonl, and so it is when a run is resumed, from whatever checkpoint.
    """

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        self._source, self._path = folder / "metrics.jsonl", folder / "metrics.csv"
        self._columns = ["step", "time"]
        self._write_anew()

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        rows = list(self._new_rows())
        if all(name in self._columns for row in rows for name in row):
            with self._path.open("a", newline="") as file:
                self._write(file, rows)
        else:
            self._write_anew()

    def _new_rows(self) -> Iterator[dict[str, Any]]:
        with self._source.open("rb") as file:
            file.seek(self._read)
            for line in lines_of(file):
                if line.endswith(b"\n"):
                    self._read += len(line)
                    yield json.loads(line)

    def _write_anew(self) -> None:
        self._read = 0
        for row in self._new_rows():
            self._columns += [name for name in row if name not in self._columns]
        self._read = 0
        temporary = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        try:
            with temporary.open("w", newline="") as file:
                self._write(file, [dict(zip(self._columns, self._columns, strict=True))])
                self._write(file, self._new_rows())
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, file: Any, rows: Iterable[dict[str, Any]]) -> None:
        csv.DictWriter(file, self._columns, lineterminator="\n").writerows(rows)
