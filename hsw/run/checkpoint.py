"""Checkpoints: tensors as safetensors, the rest as JSON, a checksummed manifest, and a rename that makes them whole.

A checkpoint is a folder `000042` with tensors.safetensors, state.json and manifest.json; of several ranks, each after
the first has tensors-<rank>.safetensors and state-<rank>.json. It is written under a name that no loader matches,
synced, and renamed. The rows of a replay are in files beside it, in `rows`, which never change and to which the
manifest refers: a checkpoint writes the rows that are new since the one before, and a file is deleted when none refers
to it any more. Nothing is ever unpickled, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from hsw.directory import Directory
from hsw.errors import CorruptError, ResourceError
from hsw.run.packed import all_finite, clone_state
from hsw.run.rows import drop_rows
from hsw.run.state_files import FORMAT, read_meta, read_state, rows_of, signed, write_manifest, write_part

__all__ = [
    "FORMAT",
    "Loaded",
    "all_finite",
    "clone_state",
    "list_checkpoints",
    "load_newest",
    "read_meta",
    "read_state",
    "save_checkpoint",
    "signed",
    "sweep_unfinished",
    "write_state",
]

_NAME = re.compile(r"[0-9]{6,18}", re.ASCII)


class Loaded(NamedTuple):
    """A checkpoint that was read, and one sentence for every newer one that had to be passed over."""

    state: dict[str, Any]
    meta: dict[str, Any]
    complaints: list[str]
    path: Path


def save_checkpoint(
    folder: Path, state: dict[str, Any], meta: dict[str, Any], keep: int = 2, previous: Path | None = None
) -> Path:
    """Write a state atomically as the folder's newest checkpoint, and delete all but the newest `keep`.

    Args:
        folder: Of the checkpoints.
        state: Nested dicts and lists of tensors, JSON values and AppendLogs.
        meta: What the manifest tells without reading the state, such as the step.
        keep: Number of checkpoints kept.
        previous: The checkpoint of the same run that was saved or loaded last: its rows are not written again.

    Raises:
        ResourceError: If the disk does not take it; what was there before is untouched.
        CorruptError: If the folder, or what would be written into, is a link.
    """
    final = folder
    try:
        with Directory.open(folder, create=True, follow=False) as directory:
            number = next_number(directory)
            final, temporary = folder / f"{number:06d}", f".writing-{number:06d}-{os.getpid()}"
            try:
                write_state(folder / temporary, state, meta, previous, directory)
                publish(directory, temporary, number, keep, previous)
            except OSError:
                discard(directory, temporary)
                raise
    except OSError as error:
        raise ResourceError(f"cannot write the checkpoint {final}: {error.strerror or error}") from error
    return final


def next_number(directory: Directory) -> int:
    """The number of the checkpoint that comes next in a folder."""
    return max(_numbers(directory), default=0) + 1


def publish(directory: Directory, temporary: str, number: int, keep: int, previous: Path | None) -> None:
    """Give a checkpoint that is whole its name, and delete those that are not kept."""
    numbers = _numbers(directory)
    directory.rename(temporary, f"{number:06d}")
    directory.sync()
    # Those newer than the one from which this run went on were damaged, and are of no use to anybody.
    passed_over = [old for old in numbers if previous is not None and old > int(previous.name)]
    numbers = [old for old in numbers if old not in passed_over]
    for old in passed_over + numbers[: max(0, len(numbers) + 1 - keep)]:
        with contextlib.suppress(OSError):
            directory.remove(f"{old:06d}")
    _drop_unused(directory)


def discard(directory: Directory, temporary: str) -> None:
    """Delete a checkpoint that could not be written, as far as the disk lets."""
    with contextlib.suppress(OSError):
        directory.remove(temporary)
    _drop_unused(directory)


def load_newest(folder: Path, rows: bool = True) -> Loaded:
    """Read the newest checkpoint that is whole and of a known format.

    Args:
        folder: Of the checkpoints.
        rows: False leaves the rows of AppendLogs unread and unchecked.

    Raises:
        CorruptError: If there is none that can be read.
    """
    complaints: list[str] = []
    for number in reversed(list_checkpoints(folder)):
        try:
            path = folder / f"{number:06d}"
            return Loaded(*read_state(path, rows), complaints, path)
        except CorruptError as error:
            complaints.append(str(error))
    detail = "; ".join(complaints) or "there is none"
    raise CorruptError(f"no checkpoint in {folder} can be read: {detail}")


def write_state(
    folder: Path,
    state: dict[str, Any],
    meta: dict[str, Any],
    previous: Path | None = None,
    parent: Directory | None = None,
) -> None:
    """Write a state and its manifest into a new folder, synced to the disk; rows go to the folder `rows` beside it.

    Args:
        folder: In place of what is there.
        state, meta, previous: See save_checkpoint.
        parent: The folder's, if it is open already.
    """
    with contextlib.ExitStack() as stack:
        if parent is None:
            parent = stack.enter_context(Directory.open(folder.parent, create=True))
        if parent.kind(folder.name):
            parent.remove(folder.name)
        here = stack.enter_context(parent.enter(folder.name, create=True))
        write_manifest(here, meta, [write_part(parent, here, state, 0, previous)])


def list_checkpoints(folder: Path) -> list[int]:
    """The numbers of the finished checkpoints, oldest first.

    Raises:
        CorruptError: If the folder is a link.
    """
    try:
        with Directory.open(folder, follow=False) as directory:
            return _numbers(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def sweep_unfinished(folder: Path) -> None:
    """Delete what a killed process left half-written; only the owner of the run folder may.

    Raises:
        CorruptError: If the folder is a link.
    """
    try:
        with Directory.open(folder, follow=False) as directory:
            for name in directory.names():
                if name.startswith(".writing-"):
                    with contextlib.suppress(OSError):
                        directory.remove(name)
            _drop_unused(directory)
    except (FileNotFoundError, NotADirectoryError):
        return


def _numbers(directory: Directory) -> list[int]:
    numbers = [int(name) for name in directory.names() if _NAME.fullmatch(name) and directory.kind(name) != "file"]
    return sorted(number for number in set(numbers) if directory.kind(f"{number:06d}"))


def _drop_unused(directory: Directory) -> None:
    """Delete the rows to which no checkpoint refers; not now, if the disk does not tell or does not let."""
    with contextlib.suppress(OSError):
        kept = [rows_of(directory, f"{number:06d}") for number in _numbers(directory)]
        drop_rows(directory, {entry["sha256"] for rows in kept for entries in rows.values() for entry in entries})
