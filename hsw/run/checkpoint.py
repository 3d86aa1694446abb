"""Checkpoints: tensors as safetensors, the rest as JSON, a checksummed manifest, and a rename that makes them whole.

A checkpoint is a folder `000042` with tensors.safetensors, state.json and manifest.json. It is written under a name
that no loader matches, synced, and renamed. The rows of a replay are in files beside it, in `rows`, which never change
and to which the manifest refers: a checkpoint writes the rows that are new since the one before, and a file is deleted
when no checkpoint refers to it any more. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hsw.append_log import AppendLog, Piece
from hsw.errors import CorruptError, ResourceError
from hsw.run.folder import write_synced

FORMAT = 1


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
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = list_checkpoints(folder)
    number = numbers[-1] + 1 if numbers else 1
    final, temporary = folder / f"{number:06d}", folder / f".writing-{number:06d}-{os.getpid()}"
    try:
        write_state(temporary, state, meta, previous)
        os.rename(temporary, final)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _drop_rows(folder)
        raise ResourceError(f"cannot write the checkpoint {final}: {error.strerror or error}") from error
    # Those that are newer than the one from which this run went on were damaged, and are of no use to anybody.
    passed_over = [old for old in numbers if previous is not None and old > int(previous.name)]
    numbers = [old for old in numbers if old not in passed_over]
    for old in passed_over + numbers[: max(0, len(numbers) + 1 - keep)]:
        shutil.rmtree(folder / f"{old:06d}", ignore_errors=True)
    _drop_rows(folder)
    return final


def load_newest(folder: Path, rows: bool = True) -> Loaded:
    """Read the newest checkpoint that is whole.

    Args:
        folder: Of the checkpoints.
        rows: False leaves the rows of AppendLogs unread and unchecked.

    Raises:
        CorruptError: If there is none that can be read, or the newest is of a later format.
    """
    complaints: list[str] = []
    for number in reversed(list_checkpoints(folder)):
        try:
            path = folder / f"{number:06d}"
            return Loaded(*read_state(path, rows), complaints, path)
        except CorruptError as error:
            if getattr(error, "newer", False):
                raise
            complaints.append(str(error))
    detail = "; ".join(complaints) or "there is none"
    raise CorruptError(f"no checkpoint in {folder} can be read: {detail}")


def list_checkpoints(folder: Path) -> list[int]:
    """The numbers of the finished checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's manifest tells without its state.

    Raises:
        CorruptError: If it cannot be read.
    """
    try:
        return dict(json.loads((checkpoint / "manifest.json").read_bytes())["meta"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"checkpoint {checkpoint} is damaged: {type(error).__name__}: {error}") from error


def sweep_unfinished(folder: Path) -> None:
    """Delete what a killed process left half-written; only the owner of the run folder may."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(".writing-"):
                shutil.rmtree(path, ignore_errors=True)
        _drop_rows(folder)


def write_state(folder: Path, state: dict[str, Any], meta: dict[str, Any], previous: Path | None = None) -> None:
    """Write a state and its manifest into a new folder, synced to the disk; rows go to the folder `rows` beside it."""
    from safetensors.torch import save

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    logs: dict[str, AppendLog] = {}
    plain = json.dumps(_split(state, "", tensors, logs), allow_nan=True)
    saved = {}
    with contextlib.suppress(OSError):  # then all rows are written
        saved = _rows_of(previous) if previous and logs else {}
    rows = {path: _write_rows(folder, log, saved.get(path, [])) for path, log in logs.items()}
    files = {"tensors.safetensors": save(tensors), "state.json": plain.encode()}
    checksums = {}
    for name, content in files.items():
        write_synced(folder / name, content)
        checksums[name] = hashlib.sha256(content).hexdigest()
    manifest = {"format": FORMAT, "meta": meta, "sha256": checksums, "rows": rows}
    write_synced(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    _sync(folder)


def _write_rows(folder: Path, log: AppendLog, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the rows that no file has yet. Returns the entries of all files that hold rows which count."""
    from safetensors.torch import save

    target = folder.parent / "rows"
    entries = [entry for entry in saved if any(end > low for end, low in zip(entry["end"], log.begin, strict=True))]
    if not all((target / entry["sha256"]).is_file() for entry in entries):  # somebody deleted one
        entries = []
    begin = [max(pair) for pair in zip(log.begin, entries[-1]["end"] if entries else log.begin, strict=True)]
    for piece in log.read(begin, log.end) if begin != list(log.end) else ():
        content = save({"rows": piece.rows.contiguous()})
        name = hashlib.sha256(content).hexdigest()  # a file of that name can hold nothing else
        target.mkdir(exist_ok=True)
        write_synced(target / f".{name}", content)
        os.rename(target / f".{name}", target / name)
        entries.append({"begin": list(piece.begin), "end": list(piece.end), "sha256": name})
    if target.is_dir():
        _sync(target)
    return entries


def _drop_rows(folder: Path) -> None:
    """Delete the files of rows to which no checkpoint refers; not now, if the disk does not tell or does not let."""
    if not (folder / "rows").is_dir():
        return
    with contextlib.suppress(OSError):
        kept = [_rows_of(folder / f"{number:06d}") for number in list_checkpoints(folder)]
        used = {entry["sha256"] for rows in kept for entries in rows.values() for entry in entries}
        for path in (folder / "rows").iterdir():
            if path.name not in used:
                path.unlink(missing_ok=True)


def _rows_of(checkpoint: Path) -> dict[str, list[dict[str, Any]]]:
    """The files of rows that a checkpoint refers to; a damaged one refers to none."""
    try:
        return dict(json.loads((checkpoint / "manifest.json").read_bytes())["rows"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def read_state(folder: Path, rows: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a state and its meta; without `rows`, AppendLogs cannot be read.

    Raises:
        CorruptError: If a file is missing, damaged, or of a later format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["format"] > FORMAT:
            error = CorruptError(
                f"checkpoint {folder} has format {manifest['format']}, and this hsw reads up to {FORMAT}; update hsw"
            )
            error.newer = True  # type: ignore[attr-defined]
            raise error
        content = {}
        for name in ("tensors.safetensors", "state.json"):
            content[name] = (folder / name).read_bytes()
            if hashlib.sha256(content[name]).hexdigest() != manifest["sha256"][name]:
                raise CorruptError(f"checkpoint {folder} is damaged: {name} does not match its checksum")
        logs = {
            path: [_checked(folder, entry, rows) for entry in entries]
            for path, entries in manifest.get("rows", {}).items()
        }
        tensors = load(content["tensors.safetensors"])
        return _join(json.loads(content["state.json"]), tensors, logs), manifest["meta"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CorruptError):
            raise
        raise CorruptError(f"checkpoint {folder} is damaged: {type(error).__name__}: {error}") from error


def _checked(folder: Path, entry: dict[str, Any], rows: bool) -> tuple[Sequence[int], Sequence[int], Path]:
    path = folder.parent / "rows" / entry["sha256"]
    if rows:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                raise CorruptError(f"checkpoint {folder} is damaged: {path} does not match its checksum")
    return entry["begin"], entry["end"], path


def _read_rows(files: list[tuple[Sequence[int], Sequence[int], Path]]) -> Iterator[Piece]:
    from safetensors.torch import load_file

    for begin, end, path in files:
        yield Piece(begin, end, load_file(path)["rows"])


def clone_state(state: Any) -> Any:
    """A deep copy of a nested state whose tensors share nothing with the original."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: clone_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [clone_state(value) for value in state]
    return state


def _split(value: Any, path: str, tensors: dict[str, Tensor], logs: dict[str, AppendLog]) -> Any:
    """Move every tensor into `tensors` under its path, and every AppendLog into `logs`; what remains is JSON."""
    if isinstance(value, AppendLog):
        logs[path] = value
        return {"$rows": path, "begin": list(value.begin), "end": list(value.end)}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()  # clone: safetensors refuses shared memory
        return {"$tensor": path}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _split(item, f"{path}/{key}", tensors, logs) for key, item in value.items()}
        # JSON has no integer keys, and optimisers number their parameters.
        return {"$items": [[key, _split(item, f"{path}/{key}", tensors, logs)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{index}", tensors, logs) for index, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor], logs: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$rows" in value:
            files = logs[value["$rows"]]
            return AppendLog(value["begin"], value["end"], lambda begin, end: _read_rows(files))
        if "$items" in value:
            return {key: _join(item, tensors, logs) for key, item in value["$items"]}
        return {key: _join(item, tensors, logs) for key, item in value.items()}
    return [_join(item, tensors, logs) for item in value] if isinstance(value, list) else value


def all_finite(state: Any) -> bool:
    """Whether every floating-point tensor of a nested state is finite."""
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(all_finite(value) for value in state.values())
    return all(map(all_finite, state)) if isinstance(state, list | tuple) else True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
