"""The run's metrics: metrics.jsonl, which is the truth, and the copies of it that loggers make."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hsw.directory import Directory
from hsw.run.logger import Logger

LoggerLike = Logger | Mapping[str, Logger] | None


class Metrics:
    """Writes each row to metrics.jsonl, one JSON object per line, and hands it to the loggers.

    A row is written by a single system call, so a killed run leaves whole lines. Whatever a logger raises is told once
    and ends that logger's copy, never the run nor another copy.

    Args:
        loggers: One, or several by name, or None.
    """

    def __init__(self, loggers: LoggerLike = None) -> None:
        named = {_kind(loggers): loggers} if isinstance(loggers, Logger) else dict(loggers or {})
        self.loggers: dict[str, Logger] = named
        self._copying = set(named)
        self._states: dict[str, Any] = {}  # of all loggers that the run has had, by name
        self._refused: set[tuple[str, str]] = set()  # name and kind of what a logger could not take
        self.run_id: str | None = None
        self._file: Any = None
        self._start = time.monotonic()
        self._elapsed = 0.0

    def start(self, folder: Path, config: dict[str, Any], state: dict[str, Any] | None) -> None:
        """Begin writing into the run folder.

        Args:
            folder: Of the run.
            config: The resolved config.
            state: What state_dict returned, on resume: rows logged after that moment are taken back.
        """
        with Directory.open(folder) as directory:
            self._file = directory.append("metrics.jsonl")
        if state:
            if os.fstat(self._file.fileno()).st_size > state["size"]:
                self._file.truncate(state["size"])
            self._elapsed = state["elapsed"]
        self._start = time.monotonic()
        self._states = states = _copies(state or {}, self.loggers)
        self._each("start", lambda name, logger: logger.open(folder, config, states.get(name)))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write one row of metrics at a step; what is not finite is null there."""
        row: dict[str, Any] = {"step": step, "time": round(self.elapsed, 3)}
        if self.run_id is not None:  # the first row of each session tells whose it is
            row["run"], self.run_id = self.run_id, None
        for name, value in metrics.items():
            row[name] = value if isinstance(value, int) or math.isfinite(value) else None
        if self._file is not None:
            _write(self._file, json.dumps(row).encode() + b"\n")
        self._each("log", lambda name, logger: logger.copy(step, metrics))

    def log_text(self, step: int, name: str, text: str) -> None:
        """Hand a text to the loggers that take texts."""
        self._hand("text", lambda logger: logger.log_text(step, name, text))

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        """Hand values, a tensor or an array of any shape, to the loggers that take histograms; finite ones only."""
        array = _array(values).astype(float).ravel()
        array = array[np.isfinite(array)]
        if array.size:
            self._hand("histogram", lambda logger: logger.log_histogram(step, name, array))

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Hand an image, uint8 [H, W, C], to the loggers that take images."""
        self._hand("image", lambda logger: logger.log_image(step, name, _array(image)))

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        """Hand a video, uint8 [T, H, W, C], to the loggers that take videos."""
        self._hand("video", lambda logger: logger.log_video(step, name, _array(frames), fps))

    def finish(self, exit_code: int) -> None:
        """Close everything."""
        self._each("finish", lambda name, logger: logger.close(exit_code))
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def elapsed(self) -> float:
        """Seconds of running, over all sessions of the run."""
        return self._elapsed + time.monotonic() - self._start

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on where this one is."""
        size = os.fstat(self._file.fileno()).st_size if self._file is not None else 0
        for name, logger in self.loggers.items():  # also of those that failed: wandb's id outlives a session without it
            try:
                self._states[name] = json.loads(json.dumps(logger.copy_state()))
            except Exception as error:  # a logger never ends a run, and the checkpoint holds JSON
                self._stop(name, "state", error)
        return {"size": size, "elapsed": self.elapsed, "copies": dict(self._states)}

    def _each(self, what: str, action: Callable[[str, Logger], None]) -> None:
        for name in [name for name in self.loggers if name in self._copying]:
            logger = self.loggers[name]
            try:
                action(name, logger)
            except Exception as error:  # a copy never ends a run, whatever its library raises
                self._stop(name, what, error)

    def _stop(self, name: str, what: str, error: Exception) -> None:
        if name in self._copying:
            self._copying.remove(name)
            kind = type(self.loggers[name]).__name__
            warnings.warn(f"{kind} stopped ({what}: {error}); metrics.jsonl goes on", stacklevel=4)
            with contextlib.suppress(Exception):
                self.loggers[name].abandon()

    def _hand(self, kind: str, action: Callable[[Logger], None]) -> None:
        for name, logger in self.loggers.items():
            if name not in self._copying or (name, kind) in self._refused:
                continue
            try:
                action(logger)
            except Exception as error:  # perhaps a package that only this kind needs: the metrics are copied on
                self._refused.add((name, kind))
                warnings.warn(
                    f"{type(logger).__name__} takes no more {kind}s ({error}); the rest goes on", stacklevel=3
                )


def _array(values: Any) -> np.ndarray:
    """A tensor of any device, or anything that NumPy reads, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
    return np.asarray(values)


def _kind(logger: Logger) -> str:
    """What a logger alone is called in checkpoints: as it would be among several, wandb of WandbLogger."""
    return type(logger).__name__.removesuffix("Logger").lower() or "logger"


def _copies(state: Mapping[str, Any], loggers: Mapping[str, Logger]) -> dict[str, Any]:
    """The state of each logger that has one. A checkpoint of 0.1.0 has that of the only one, which was wandb's."""
    if "copy" not in state:
        return dict(state.get("copies", {}))
    heir = "wandb" if "wandb" in loggers else next(iter(loggers), "")
    return {heir: state["copy"]}


def _write(file: BinaryIO, line: bytes) -> None:
    try:
        written = file.write(line)
        if written < len(line):  # a full disk takes a part, and half a row would spoil the file
            file.truncate(file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        warnings.warn(f"cannot write metrics.jsonl: {error.strerror or error}", stacklevel=3)
