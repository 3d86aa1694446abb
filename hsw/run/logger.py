"""Metrics. The run's own metrics.jsonl is the truth; TensorBoard and wandb are copies of it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal


class Logger:
    """Writes each row of metrics to metrics.jsonl, one JSON object per line.

    A row is written by a single system call, so a killed run leaves whole lines.

    Subclasses copy the rows elsewhere: open, copy, close and abandon are theirs. Whatever a copy raises is told once
    and ends the copying, never the run.
    """

    def __init__(self) -> None:
        self._file: Any = None
        self._copying = True
        self._start = time.time()
        self._elapsed = 0.0

    def start(self, folder: Path, config: dict[str, Any], state: dict[str, Any] | None) -> None:
        """Begin writing into the run folder.

        Args:
            folder: Of the run.
            config: The resolved config.
            state: What state_dict returned, on resume: rows logged after that moment are taken back.
        """
        path = folder / "metrics.jsonl"
        if state:
            if path.exists() and path.stat().st_size > state["size"]:
                os.truncate(path, state["size"])
            self._elapsed = state["elapsed"]
        self._file = path.open("ab", buffering=0)
        self._start = time.time()
        self._try("start", lambda: self.open(folder, config, (state or {}).get("copy")))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write one row of figures at a step."""
        row: dict[str, Any] = {"step": step, "time": round(self.elapsed, 3)}
        for name, value in metrics.items():
            row[name] = value if isinstance(value, int) or math.isfinite(value) else None
        if self._file is not None:
            self._write(json.dumps(row).encode() + b"\n")
        self._try("log", lambda: self.copy(step, metrics))

    def _write(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
            if written < len(line):  # a full disk takes a part, and half a row would spoil the file
                self._file.truncate(self._file.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            warnings.warn(f"cannot write metrics.jsonl: {error.strerror or error}", stacklevel=3)

    def finish(self, exit_code: int) -> None:
        """Close everything."""
        self._try("finish", lambda: self.close(exit_code))
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def elapsed(self) -> float:
        """Seconds of running, over all sessions of the run."""
        return self._elapsed + time.time() - self._start

    def state_dict(self) -> dict[str, Any]:
        size = os.fstat(self._file.fileno()).st_size if self._file is not None else 0
        return {"size": size, "elapsed": self.elapsed, "copy": self.copy_state()}

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        """Begin a copy; state is what copy_state returned before the run was interrupted."""

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        """Copy one row."""

    def log_text(self, step: int, name: str, text: str) -> None:
        """Copy a text."""

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        """Copy the distribution of values."""

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Copy an image."""

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        """Copy a video."""

    def close(self, exit_code: int) -> None:
        """End the copy."""

    def abandon(self) -> None:
        """The copy failed: leave nothing behind that would spoil the next run's in this process."""

    def copy_state(self) -> Any:
        """What continues the copy on resume: JSON."""
        return None

    def _try(self, what: str, action: Any) -> None:
        if not self._copying:
            return
        try:
            action()
        except Exception as error:  # a copy never ends a run, whatever its library raises
            self._copying = False
            warnings.warn(f"{type(self).__name__} stopped ({what}: {error}); metrics.jsonl goes on", stacklevel=2)
            with contextlib.suppress(Exception):
                self.abandon()


class LocalLogger(Logger):
    """metrics.jsonl and nothing else."""


class TensorBoardLogger(Logger):
    """Also writes TensorBoard event files into the run folder's tensorboard/."""

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self, exit_code: int) -> None:
        self._writer.close()


class WandbLogger(Logger):
    """Also logs to Weights & Biases: one run per job, continued on resume.

    Args:
        project, entity, group, name, tags: As in wandb.init.
        mode: "auto" is what WANDB_MODE says, or else online with an API key and offline without one. An online run
            that cannot start within init_timeout seconds goes on offline.
        init_timeout: Longest wait for the server at the start, in seconds.
        finish_timeout: Longest wait at the end, in seconds.
    """

    def __init__(
        self,
        project: str = "hsw",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        init_timeout: float = 30.0,
        finish_timeout: float = 30.0,
    ) -> None:
        super().__init__()
        self.options = {"project": project, "entity": entity, "group": group, "name": name}
        self.tags = list(tags or [])
        self.mode, self.init_timeout, self.finish_timeout = mode, init_timeout, finish_timeout
        self._run: Any = None
        self._id: str | None = None

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        # Reports about wandb itself wait for the server when the process ends, for as long as they like.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode: Any = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._id = (state or {}).get("id") or secrets.token_hex(4)
        common: dict[str, Any] = {**self.options, "tags": self.tags, "dir": str(folder), "config": config}
        # The console is the run's own log already; and nothing of the machine's environment is to be uploaded.
        settings: dict[str, Any] = {
            "console": "off",
            "init_timeout": self.init_timeout,
            "x_disable_meta": True,
            "silent": True,
        }
        try:
            self._run = wandb.init(
                **common, id=self._id, mode=mode, resume="allow" if state else None, settings=wandb.Settings(**settings)
            )
        except Exception as error:
            if mode != "online":
                raise
            reason = str(error).partition("\n")[0]
            warnings.warn(f"wandb is not reachable ({reason}); this run is logged offline", stacklevel=2)
            self._id = secrets.token_hex(4)  # wandb holds the first to be in use
            self._run = wandb.init(**common, id=self._id, mode="offline", settings=wandb.Settings(**settings))
        # Steps may go back after a resume, and wandb drops such rows: they carry their own step instead.
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({**metrics, "global_step": step})

    def close(self, exit_code: int) -> None:
        self._bounded(lambda: self._run.finish(exit_code=exit_code))

    def abandon(self) -> None:
        import wandb

        self._bounded(wandb.teardown)  # all runs of a process share a service; the next run starts another

    def _bounded(self, end: Callable[[], Any]) -> None:
        """wandb's own waits are unbounded when its service is gone."""
        import threading

        errors: list[Exception] = []

        def run() -> None:
            try:
                end()
            except Exception as error:
                errors.append(error)

        ending = threading.Thread(target=run, daemon=True)
        ending.start()
        ending.join(self.finish_timeout)
        if errors:
            raise errors[0]
        if ending.is_alive():
            raise TimeoutError(f"wandb did not finish within {self.finish_timeout:g} s")

    def copy_state(self) -> Any:
        return {"id": self._id} if self._id else None
