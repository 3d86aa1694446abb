"""The run folder: who owns it, and what it was made from."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import uuid
from pathlib import Path
from typing import BinaryIO

from hsw.directory import Directory, Kind, LinkError
from hsw.errors import ConfigError, CorruptError, ResourceError
from hsw.run.guardian import started

log = logging.getLogger("hsw")

_LOCK, _OWNER = "run.lock", "run.owner"
# What a run writes into its folder, and the folders of others that write there by its path.
_OWN: dict[str, Kind] = {
    **dict.fromkeys(
        ("metrics.jsonl", "metrics.csv", "train.log", "config.yaml", "versions.json", "status.json", "verified.json"),
        "file",
    ),
    _LOCK: "file",
    **dict.fromkeys(("checkpoints", "best", "tensorboard", "wandb", "videos", "mlruns"), "folder"),
}

_COPIES = ("tensorboard", "wandb", "mlruns")  # where libraries of others write by path
_DEEPEST = 20  # folders within one of them

_REPLACED = (
    "config.yaml",
    "versions.json",
    "status.json",
    "verified.json",
)  # by a new file; the others are written in place


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, or as it was.

    Raises:
        ResourceError: If the disk does not take it.
    """
    try:
        with Directory.open(path.parent) as directory:
            directory.replace(path.name, content)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error


class RunFolder:
    """A folder that one process owns while it trains.

    Args:
        path: Made if it does not exist.
        run_id: Of the run; None draws one.

    Raises:
        ConfigError: If another process owns it.
        CorruptError: If what a run writes into its folder is a link there.
        ResourceError: If it cannot be written.
    """

    def __init__(self, path: Path, run_id: str | None = None) -> None:
        self.path = path
        self.run_id = run_id or uuid.uuid4().hex
        try:
            self.directory = Directory.open(path, create=True)
            try:
                refuse_links(self.directory)
                self._lock = self.directory.append(_LOCK)
            except BaseException:
                self.directory.close()
                raise
        except OSError as error:
            raise ResourceError(f"cannot write into the run folder {path}: {error.strerror or error}") from error
        try:
            self._own()
        except BaseException:
            self.close()
            raise

    def _own(self) -> None:
        self._lock_name = _LOCK
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read(100).decode(errors="replace").strip() or "unknown"
            raise ConfigError(f"the run folder {self.path} is in use by process {owner}") from None
        except OSError as error:
            self._own_without_flock(error)
            return
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()).encode())

    def _own_without_flock(self, error: OSError) -> None:
        """A file that only one process can make. It outlives its process, which therefore stands in it."""
        me = f"{os.getpid()} on {socket.gethostname()} since {started(os.getpid())}"
        for _ in range(2):
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                descriptor = self.directory.open_file(_OWNER, flags)
            except OSError as taken:
                if taken.errno != errno.EEXIST:
                    raise ResourceError(f"cannot own the run folder {self.path}: {taken.strerror}") from taken
                owner = self.directory.read(_OWNER, 1000).decode(errors="replace").strip()
                if not _ended(owner):
                    who = owner.partition(" since ")[0] or "unknown"
                    raise ConfigError(
                        f"the run folder {self.path} is in use by process {who}; "
                        f"if that has ended, delete {self.path / _OWNER}"
                    ) from None
                self.directory.remove(_OWNER)
                continue
            with os.fdopen(descriptor, "wb") as file:
                file.write(me.encode())
            self._lock.close()
            self._lock = self.directory.append(_OWNER)
            self._lock_name = _OWNER
            log.warning("%s cannot be locked (%s); %s keeps others out instead", self.path, error.strerror, _OWNER)
            return
        raise ConfigError(f"the run folder {self.path} is in use by another process that began this moment")

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.path / "best"

    def check(self) -> None:
        """Notice that the folder, or what says whose it is, is gone.

        Raises:
            FolderLostError: If so.
        """
        if not self.directory.still_there():
            raise FolderLostError(f"the run folder {self.path} was deleted or moved while this run wrote into it")
        try:
            there = os.stat(self._lock_name, dir_fd=self.directory.descriptor, follow_symlinks=False)
            ours = os.path.samestat(there, os.fstat(self._lock.fileno()))
        except OSError:
            ours = False
        if not ours:
            raise FolderLostError(
                f"{self.path / self._lock_name} was removed while this run wrote into its folder; "
                "another process may take the folder for free"
            )

    def write_text(self, name: str, text: str) -> None:
        """Write a small file.

        Raises:
            ResourceError: If the disk does not take it.
        """
        try:
            self.directory.replace(name, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise ResourceError(f"cannot write {self.path / name}: {error.strerror or error}") from error

    def close(self) -> None:
        if getattr(self, "_lock_name", _LOCK) == _OWNER and not self._lock.closed:
            with contextlib.suppress(OSError):
                self.directory.remove(_OWNER)
        self._lock.close()
        self.directory.close()


class UnownedFolder(RunFolder):
    """A run's folder that is read, and in which nothing is written.

    Args:
        path: Of it.

    Raises:
        CorruptError: As in RunFolder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: BinaryIO | None = None
        self.directory = Directory.open(path)
        try:
            refuse_links(self.directory)
        except BaseException:
            self.directory.close()
            raise

    def hold(self) -> None:
        """Keep runs out until it is closed, without writing anything; others may hold it too.

        Raises:
            ConfigError: If a process owns it.
        """
        try:
            self._held = os.fdopen(self.directory.open_file(_LOCK, os.O_RDONLY), "rb")
        except FileNotFoundError:  # nobody has run here; it may be a copy
            self._held = None
        if self._held is not None:
            try:
                fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = self._held.read(100).decode(errors="replace").strip() or "unknown"
                raise ConfigError(f"the run folder {self.path} is in use by process {owner}") from None
            except OSError:  # it cannot be locked, and run.owner keeps others out
                pass
        if self.directory.kind(_OWNER) is not None:
            owner = self.directory.read(_OWNER, 1000).decode(errors="replace").strip()
            if not _ended(owner):
                raise ConfigError(f"the run folder {self.path} is in use by process {owner.partition(' since ')[0]}")

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
        self.directory.close()


class FolderLostError(ResourceError):
    """The folder is no longer the run's. Nothing more can be saved there."""


def refuse_links(directory: Directory) -> None:
    """Refuse a folder in which something that a run writes is a link, or not what the run would write.

    Raises:
        CorruptError: Naming it.
        OSError: If it cannot be looked at.
    """
    for name in directory.names():
        if name == ".wandb":
            raise _no_part(directory.path / name)
        expected, found = _OWN.get(name), directory.kind(name)
        if expected is None and name.startswith("nonfinite-"):
            expected = "folder"
        if expected is None or found is None:
            continue
        if expected == "folder":
            with directory.enter(name) as inner:  # raises
                if name in ("checkpoints", "best"):
                    _refuse_links_to_folders(inner)
                elif name in _COPIES:
                    _refuse_in_copies(inner, name)
        else:
            os.close(directory.open_file(name, os.O_RDONLY if name in _REPLACED else os.O_RDWR))


def _refuse_links_to_folders(directory: Directory) -> None:
    for name in directory.names():
        if directory.kind(name) == "link":
            raise LinkError(f"{directory.path / name} is a link, and what is in a run folder must be its own")


def owner_of(folder: Path) -> int | None:
    """The process of this host that says that it owns a run folder."""
    with contextlib.suppress(OSError, ValueError):
        return int((folder / _LOCK).read_text())
    with contextlib.suppress(OSError):
        pid, _, host = (folder / _OWNER).read_text().partition(" since ")[0].partition(" on ")
        return int(pid) if pid.isdecimal() and host == socket.gethostname() else None
    return None


def _refuse_in_copies(directory: Directory, copy: str, depth: int = 1) -> None:
    """Refuse what a logger's library would follow out of its folder, or take for what its user has set."""
    if depth > _DEEPEST:
        raise CorruptError(f"{directory.path} is nested deeper than any logger's folder")
    for name in directory.names():
        path = directory.path / name
        if copy == "wandb" and depth == 1 and name == "settings":
            raise _no_part(path)
        kind = directory.kind(name)
        if kind == "folder":
            with directory.enter(name) as inner:
                _refuse_in_copies(inner, copy, depth + 1)
        elif kind == "file":
            os.close(directory.open_file(name, os.O_RDONLY))
            if os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False).st_nlink > 1:
                raise LinkError(f"{path} has another name elsewhere (a hard link), and what is here must be its own")
        elif kind is not None and not (copy == "wandb" and kind == "link" and _is_wandbs(directory, name, depth)):
            what = "a link" if kind == "link" else "no file"
            raise LinkError(f"{path} is {what}, and what is in a run folder must be its own; delete it")


def _is_wandbs(directory: Directory, name: str, depth: int) -> bool:
    """Whether a link is one of those that wandb makes: to its latest run beside it, or of a past run's own log."""
    if depth > 1:
        return name == "debug-core.log" and directory.path.name == "logs"
    target = Path(os.readlink(name, dir_fd=directory.descriptor))
    inside = (directory.path / target).resolve().is_relative_to(directory.path.resolve())
    return name in ("latest-run", "debug.log", "debug-internal.log") and inside


def _no_part(path: Path) -> CorruptError:
    return CorruptError(f"{path} is no part of a run, and wandb would take it for a setting of yours; delete it")


def _ended(owner: str) -> bool:
    """Whether a process, told as "<pid> on <host> since <start>", was of this host and is no more."""
    who, _, since = owner.partition(" since ")
    pid, _, host = who.partition(" on ")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    now = started(int(pid))
    return bool(since and now and now != since)  # another has its id by now
