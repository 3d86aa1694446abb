"""The run folder: who owns it, and what it was made from."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hsw.errors import ConfigError, ResourceError


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, or as it was.

    Raises:
        ResourceError: If the disk does not take it.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error


class RunFolder:
    """A folder that one process owns while it trains.

    Args:
        path: Made if it does not exist.

    Raises:
        ConfigError: If another process owns it.
        ResourceError: If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "run.lock").open("a+")
        except OSError as error:
            raise ResourceError(f"cannot write into the run folder {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            raise ConfigError(f"the run folder {path} is in use by process {owner}") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.path / "best"

    def write_text(self, name: str, text: str) -> None:
        """Write a small file.

        Raises:
            ResourceError: If the disk does not take it.
        """
        try:
            (self.path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise ResourceError(f"cannot write {self.path / name}: {error.strerror or error}") from error

    def close(self) -> None:
        self._lock.close()
