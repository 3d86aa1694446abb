"""train.log, opened where it is and by no link."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from pathlib import Path

from hsw.directory import Directory
from hsw.secrets import redact


class LogFile(logging.FileHandler):
    """logging.FileHandler that follows no link, and opens its file with the first message that it writes.

    Args:
        filename: Of the log; its folder exists.

    Raises:
        CorruptError: With the first message, if the file is a link.
    """

    def __init__(self, filename: str) -> None:
        super().__init__(filename, mode="a", encoding="utf-8", delay=True)
        self._lost = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost:
            return
        try:
            super().emit(record)
        except OSError as error:  # of opening it
            self._lost = True
            print(f"hsw: cannot write {self.baseFilename}: {error.strerror or error}", file=sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        with Directory.open(path.parent) as directory:
            descriptor = directory.open_file(path.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
