"""Checkpoints: tensors as safetensors, the rest as JSON, a checksummed manifest, and a rename that makes them whole.

A checkpoint is a folder `000042` with tensors.safetensors, state.json and manifest.json; of several ranks, each after
the first has tensors-<rank>.safetensors and state-<rank>.json. It is written under a name that no loader matches,
synced, and renamed. The rows of a replay are in files beside it, in `rows`, which never change
and to which the manifest refers: a checkpoint writes the rows that are new since the one before, and a file is deleted
when no checkpoint refers to it any more. Nothing is ever unpickled, and no link is followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hsw.append_log import AppendLog
from hsw.directory import Directory
from hsw.errors import CorruptError, ResourceError
from hsw.run.packed import all_finite, clone_state, join, split
from hsw.run.rows import Entry, check_rows, drop_rows, saved_log, write_rows

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

FORMAT = 3  # 1 had no checksum of the manifest itself; 3 has parts of several ranks, and is written for these alone
_NAME = re.compile(r"[0-9]{6,18}", re.ASCII)
_LARGEST = {"manifest.json": 2**26, "state.json": 2**28}  # bytes: what is parsed is bounded
_FAULTS = (CorruptError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class _NewerFormat(CorruptError):
    """Written by a later hsw."""


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


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's manifest tells without its state.

    Raises:
        CorruptError: If it cannot be read.
    """
    try:
        with Directory.open(checkpoint.parent, follow=False) as parent, parent.enter(checkpoint.name) as here:
            return dict(_read_manifest(here)["meta"])
    except _FAULTS as error:
        raise _damaged(checkpoint, error) from error


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


def files_of(rank: int) -> tuple[str, str]:
    """The files of a rank's part: its tensors, and the rest."""
    return (f"tensors-{rank}.safetensors", f"state-{rank}.json") if rank else ("tensors.safetensors", "state.json")


def write_part(
    parent: Directory, here: Directory, state: dict[str, Any], rank: int, previous: Path | None
) -> dict[str, Any]:
    """Write a rank's part of a checkpoint. Returns what the manifest says of it.

    Args:
        parent: Of the checkpoints.
        here: Of the one that is written.
        state, previous: See save_checkpoint.
        rank: Whose part it is.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    logs: dict[str, AppendLog] = {}
    plain = json.dumps(split(state, f"rank-{rank}" if rank else "", tensors, logs), allow_nan=True)
    saved: dict[str, list[Entry]] = {}
    with contextlib.suppress(OSError):  # then all rows are written
        saved = _rows_of(parent, previous.name) if previous and logs else {}
    rows = {path: write_rows(parent, log, saved.get(path, []), rank) for path, log in logs.items()}
    checksums = {}
    for name, content in zip(files_of(rank), (save(tensors), plain.encode()), strict=True):
        here.write(name, content)
        checksums[name] = hashlib.sha256(content).hexdigest()
    return {"sha256": checksums, "rows": rows}


def write_manifest(here: Directory, meta: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """Write what makes a checkpoint of the parts of all ranks, in their order."""
    ranks = {"ranks": len(parts)} if len(parts) > 1 else {}
    joined = {key: {name: told for part in parts for name, told in part[key].items()} for key in ("sha256", "rows")}
    manifest = signed({"format": FORMAT if ranks else 2, **ranks, "meta": meta, **joined})
    here.write("manifest.json", json.dumps(manifest, indent=1).encode())
    here.sync()


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the checksum of all that it says."""
    unsigned = {key: value for key, value in manifest.items() if key != "checksum"}
    return {**unsigned, "checksum": hashlib.sha256(json.dumps(unsigned, sort_keys=True).encode()).hexdigest()}


def read_state(folder: Path, rows: bool = True, rank: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a state and its meta; without `rows`, AppendLogs cannot be read. Of several ranks' it is that of one.

    Raises:
        CorruptError: If a file is missing, damaged, or of a later format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        with Directory.open(folder.parent, follow=False) as parent, parent.enter(folder.name) as here:
            manifest = _read_manifest(here)
            if rank >= manifest.get("ranks", 1):
                raise CorruptError(f"it has no part of rank {rank}")
            content = []
            for name in files_of(rank):
                content.append(here.read(name, _LARGEST.get(re.sub(r"-\d+", "", name))))
                if hashlib.sha256(content[-1]).hexdigest() != manifest["sha256"][name]:
                    raise CorruptError(f"{name} does not match its checksum")
            logs = {
                path: partial(saved_log, folder.parent, check_rows(parent, entries, rows))
                for path, entries in manifest.get("rows", {}).items()
                if _rank_of(path) == rank
            }
            state = join(json.loads(content[1]), load(content[0]), logs)
            if not isinstance(state, dict):
                raise CorruptError("state.json holds no state")
            return state, manifest["meta"]
    except (*_FAULTS, SafetensorError) as error:
        raise _damaged(folder, error) from error


def ranks_of(checkpoint: Path) -> int:
    """How many ranks' parts a checkpoint has.

    Raises:
        CorruptError: If it cannot be read.
    """
    try:
        with Directory.open(checkpoint.parent, follow=False) as parent, parent.enter(checkpoint.name) as here:
            return int(_read_manifest(here).get("ranks", 1))
    except _FAULTS as error:
        raise _damaged(checkpoint, error) from error


def _rank_of(path: str) -> int:
    """Whose rows a manifest tells of, by their path in the state."""
    found = re.match(r"rank-([1-9][0-9]{0,5})/", path)
    return int(found[1]) if found else 0


def _damaged(checkpoint: Path, error: Exception) -> CorruptError:
    if isinstance(error, _NewerFormat):
        return CorruptError(f"checkpoint {checkpoint} has {error}")
    detail = str(error) if isinstance(error, CorruptError) else f"{type(error).__name__}: {error}"
    return CorruptError(f"checkpoint {checkpoint} is damaged: {detail}")


def _read_manifest(here: Directory) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(here.read("manifest.json", _LARGEST["manifest.json"]))
    written, meta = manifest["format"], manifest["meta"]
    if type(written) is int and written > FORMAT:
        raise _NewerFormat(f"format {written}, and this hsw reads up to {FORMAT}; update hsw")
    if type(written) is not int or written < 1:
        raise CorruptError(f"there is no format {written!r}")
    if written > 1 and signed(manifest) != manifest:
        raise CorruptError("manifest.json does not match its checksum")
    ranks = manifest.get("ranks", 1)
    if type(ranks) is not int or not 1 <= ranks < 10**6 or (ranks > 1) != (written > 2):
        raise CorruptError("manifest.json has a number of ranks that is none")
    if set(manifest["sha256"]) != {name for rank in range(ranks) for name in files_of(rank)}:
        raise CorruptError("manifest.json does not name the files of a checkpoint")
    step = meta.get("step", 0)
    if type(step) is not int or not 0 <= step < 2**62:
        raise CorruptError("manifest.json has a step that is no number of steps")
    return manifest


def _numbers(directory: Directory) -> list[int]:
    numbers = [int(name) for name in directory.names() if _NAME.fullmatch(name) and directory.kind(name) != "file"]
    return sorted(number for number in set(numbers) if directory.kind(f"{number:06d}"))


def _drop_unused(directory: Directory) -> None:
    """Delete the rows to which no checkpoint refers; not now, if the disk does not tell or does not let."""
    with contextlib.suppress(OSError):
        kept = [_rows_of(directory, f"{number:06d}") for number in _numbers(directory)]
        drop_rows(directory, {entry["sha256"] for rows in kept for entries in rows.values() for entry in entries})


def _rows_of(directory: Directory, checkpoint: str) -> dict[str, list[Entry]]:
    """The files of rows that a checkpoint refers to; a damaged one refers to none."""
    try:
        with directory.enter(checkpoint) as here:
            rows = json.loads(here.read("manifest.json", _LARGEST["manifest.json"]))["rows"]
        return {path: check_rows(directory, entries, read=False) for path, entries in rows.items()}
    except (FileNotFoundError, CorruptError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
