"""status.json: how a run stands, for a rerun of its sweep and for reports."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hsw.directory import LinkError, read_file
from hsw.errors import ConfigError, CorruptError, ResourceError
from hsw.run.folder import write_whole
from hsw.secrets import redact_all

_NAME, _ROOM = "status.json", ".status-room"
_LARGEST = 2**24  # bytes
_LONGEST = 2000  # characters of an error
_MORE = 4 * _LONGEST + 4096  # bytes by which the last status may be longer than the first
_NUMBERS = ("num_train_steps", "exit_code", "steps", "seconds", "return")


DONE_BEFORE = "done before"  # as the note of a job that was skipped

Status = Literal["running", "done", "failed", "interrupted", "not started"]


@dataclass
class JobOutcome:
    """How a run went, or stands.

    Attributes:
        status: Of the run.
        exit_code: Of its process, once it has ended.
        error: What ended it, as a sentence.
        score: Of its last evaluation: the mean return.
        steps, seconds: How far it came, and how long it took, over all its sessions.
        note: What else a sweep's table should say of it.
        job: Name of its folder, in a sweep.
        cause: The error itself, in the process in which it happened.
    """

    status: Status
    exit_code: int | None = None
    error: str | None = None
    score: float | None = None
    steps: int | None = None
    seconds: float | None = None
    note: str | None = None
    job: str | None = None
    cause: BaseException | None = None

    def as_status(self) -> dict[str, Any]:
        """What status.json says of it."""
        figures = {"steps": self.steps, "seconds": self.seconds, "return": self.score}
        error = {"error": self.error} if self.error else {}
        return {"status": self.status, "exit_code": self.exit_code, **error, **figures}

    def as_row(self) -> dict[str, Any]:
        """Its row in a sweep's table."""
        figures = {"return": self.score, "steps": self.steps, "seconds": self.seconds}
        return {"job": self.job, "status": self.status, **figures, "exit_code": self.exit_code, "note": self.note}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> JobOutcome:
        """The outcome that as_row has told."""
        return cls(**{"score" if name == "return" else name: value for name, value in row.items()})


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values that are whole or not there.

    Raises:
        ResourceError: If the disk does not take it.
    """
    write_whole(path, (json.dumps(values, indent=1) + "\n").encode())


def write_status(folder: Path, values: dict[str, Any]) -> None:
    """Write status.json, and keep room on the disk for the next time: how a run ended is told also by a full disk.

    The room is a second file, whose blocks are written over and which then takes status.json's name.

    Args:
        folder: Of the run, which this process owns.
        values: status (running, done, failed or interrupted), identity and num_train_steps; of a run that ended also
            exit_code, error, steps, seconds and return.

    Raises:
        ResourceError: If the disk does not take it.
    """
    values = {**values, **({"error": _shortened(values["error"])} if values.get("error") else {})}
    content = (json.dumps(redact_all(values), indent=1) + "\n").encode()
    if not _write_over(folder / _ROOM, folder / _NAME, content):
        write_whole(folder / _NAME, content)
    if values["status"] == "running":
        with contextlib.suppress(ResourceError):
            write_whole(folder / _ROOM, b" " * (len(content) + _MORE) + b"\n")


def _write_over(room: Path, path: Path, content: bytes) -> bool:
    """Write into the blocks that a file has already, and give it the name of another. Returns whether that was done."""
    try:
        descriptor = os.open(room, os.O_WRONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        padded = content.rstrip(b"\n").ljust(size - 1) + b"\n"  # JSON takes no notice of it
        if len(padded) > size or os.pwrite(descriptor, padded, 0) < size:
            return False
        os.fsync(descriptor)
        os.replace(room, path)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def read_status(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What the folder's earlier run wrote, if there was one.

    Args:
        folder: Of the run.
        identity: What makes the present run what it is, by name.

    Raises:
        ConfigError: If the earlier run was another one.
        CorruptError: If status.json cannot be read.
    """
    path = folder / _NAME
    if not os.path.lexists(path):
        if (folder / "checkpoints").exists() or (folder / "config.yaml").exists():
            raise ConfigError(f"{folder} holds a run that does not say which; move it away to run this job")
        return None
    try:
        status: dict[str, Any] = json.loads(read_file(folder, _NAME, _LARGEST))
        theirs, _ = status["identity"], status["status"]
        if not all(isinstance(status.get(key), int | float | None) for key in _NUMBERS):
            raise TypeError
        names = sorted(key for key in {*theirs, *identity} if theirs.get(key) != identity.get(key))
    except LinkError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, CorruptError) as error:
        raise CorruptError(f"{path} cannot be read; delete {folder} to run the job anew") from error
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        shown = ", ".join(f"{name}={theirs.get(name)}" for name in names[:3])
        raise ConfigError(
            f"{folder} holds a run with {shown}{more}; "
            "take another folder (hydra.sweep.dir=<folder>), or delete this one"
        )
    return status


def stored_identity(folder: Path) -> dict[str, Any] | None:
    """The identity in status.json, which a resumed run keeps; None if it cannot be read."""
    stored = stored_status(folder).get("identity")
    return stored if isinstance(stored, dict) else None


def stored_status(folder: Path) -> dict[str, Any]:
    """What status.json says, whatever that is; nothing if it cannot be read."""
    try:
        stored: Any = json.loads(read_file(folder, _NAME, _LARGEST))
    except (OSError, ValueError, TypeError, RecursionError, CorruptError):
        return {}
    return stored if isinstance(stored, dict) else {}
