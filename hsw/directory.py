"""A folder by its handle: what is in it is reached without following a link, so nothing outside it is touched.

A run folder may come from anybody. A link in it, in place of what hsw would write, must not become a way to read,
truncate or delete what lies elsewhere. The folder itself may be reached by links: its path is its user's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from hsw.errors import CorruptError

Kind = Literal["file", "folder", "link", "other"]
_LONGEST_LINE = 2**24  # bytes
_NOT_FOLLOWED = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.EEXIST)


class LinkError(CorruptError):
    """What should be a file or a folder of a run's own is a link, or something else altogether."""


class Directory:
    """An open directory.

    Args:
        path: By which it was reached, for messages.
        descriptor: Of the open directory, which this object closes.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path, create: bool = False, follow: bool = True) -> Directory:
        """Open a folder.

        Args:
            path: Of the folder; links on the way to it are followed.
            create: Make it, and what leads to it, if it does not exist.
            follow: Also if it is a link itself.

        Raises:
            LinkError: If it is a link, and those are not followed.
            OSError: If it cannot be opened or made.
        """
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW)
            return cls(path, os.open(path, flags))
        except OSError as error:
            if not follow and error.errno in _NOT_FOLLOWED and path.is_symlink():
                raise LinkError(_refusal(path, "link")) from None
            raise

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def enter(self, name: str, create: bool = False) -> Directory:
        """Open a folder in it.

        Raises:
            LinkError: If it is no folder.
            OSError: If it cannot be opened or made.
        """
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_plain(name), dir_fd=self.descriptor)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        return Directory(self.path / name, self._open(name, flags, "folder"))

    def kind(self, name: str) -> Kind | None:
        """What a name in it is; None if there is no such name."""
        try:
            mode = os.stat(_plain(name), dir_fd=self.descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return None
        kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        return kinds.get(stat.S_IFMT(mode), "other")

    def names(self) -> list[str]:
        """What is in it."""
        return os.listdir(self.descriptor)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """A file's content.

        Args:
            name: Of the file.
            limit: Its largest size, in bytes.

        Raises:
            LinkError: If it is no file.
            CorruptError: If it is larger.
            OSError: If it cannot be read.
        """
        with os.fdopen(self.open_file(name, os.O_RDONLY), "rb") as file:
            if limit is not None and os.fstat(file.fileno()).st_size > limit:
                raise CorruptError(f"{self.path / name} is larger than {limit} bytes")
            return file.read()

    def open_file(self, name: str, flags: int) -> int:
        """A descriptor of a file in it.

        Args:
            name: Of the file.
            flags: As os.open's. A file that has another name elsewhere is opened for reading alone.

        Raises:
            LinkError: If it is no file, or is to be written and has another name.
            OSError: If it cannot be opened.
        """
        # Not blocking: a pipe would make us wait for ever.
        descriptor = self._open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, "file")
        found = os.fstat(descriptor)
        wrong: str | None = None if stat.S_ISREG(found.st_mode) else "no file"
        if wrong is None and flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink > 1:
            wrong = "hard link"
        if wrong:
            os.close(descriptor)
            raise LinkError(_refusal(self.path / name, wrong))
        return descriptor

    def append(self, name: str) -> BinaryIO:
        """A file to read and to append to without a buffer, made if it does not exist."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        return os.fdopen(self.open_file(name, flags), "a+b", buffering=0)

    def write(self, name: str, content: bytes) -> None:
        """Write a new file, in place of one of that name, and wait until the disk has it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_plain(name), dir_fd=self.descriptor)
        with os.fdopen(self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, name: str, content: bytes) -> None:
        """Write a file that is whole, or not there, or as it was; a link of that name is replaced itself.

        Raises:
            OSError: If the disk does not take it.
        """
        temporary = f".{name}-{os.getpid()}"
        try:
            self.write(temporary, content)
            os.replace(temporary, _plain(name), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self.descriptor)
            raise

    def rename(self, name: str, new: str) -> None:
        os.rename(_plain(name), _plain(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Delete a file, a link itself, or a folder with what is in it; it is no error if there is none.

        Raises:
            OSError: If it cannot be deleted.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.kind(name) == "folder":
                shutil.rmtree(_plain(name), dir_fd=self.descriptor)
            else:
                os.unlink(_plain(name), dir_fd=self.descriptor)

    def sync(self) -> None:
        """Wait until the disk has what is called how."""
        os.fsync(self.descriptor)

    def still_there(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False

    def _open(self, name: str, flags: int, kind: Kind) -> int:
        try:
            return os.open(_plain(name), flags, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                found = self.kind(name)
                if found not in (None, kind):
                    raise LinkError(_refusal(self.path / name, "link" if found == "link" else f"no {kind}")) from None
            error.filename = str(self.path / name)
            raise


def read_file(folder: Path, name: str, limit: int | None = None) -> bytes:
    """The content of a file in a folder, see Directory.read."""
    with Directory.open(folder) as directory:
        return directory.read(name, limit)


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of an open file, one at a time.

    Raises:
        ValueError: If one is longer than a row of metrics ever is.
    """
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"it has a line of more than {_LONGEST_LINE} bytes")
        yield line


def is_file(folder: Path, name: str) -> bool:
    """Whether a folder has a file of that name which is no link to another."""
    try:
        with Directory.open(folder) as directory:
            return directory.kind(name) == "file"
    except OSError:
        return False


def is_within(value: str, folder: Path) -> bool:
    """Whether a path, or the URL of a file, is of something in a folder."""
    if value[:1] in "~$":
        return False
    parts = urlsplit(value)
    if parts.scheme not in ("", "file") or parts.netloc:
        return False
    path = unquote(parts.path) if parts.scheme else value
    return Path(os.path.abspath(path)).resolve().is_relative_to(folder.resolve())


def _plain(name: str) -> str:
    """A name of something in a folder itself, and of nothing above or below it."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise LinkError(f"{name!r} is no name of a file")
    return name


def _refusal(path: Path, what: str) -> str:
    known: dict[str, Any] = {"link": "is a link", "hard link": "has another name elsewhere (a hard link)"}
    return f"{path} {known.get(what, f'is {what}')}, and what is in a run folder must be its own; put a copy there"
