"""What one checkpoint's folder is made of: a part of each rank, and the manifest that makes a checkpoint of them.

A part is two files, tensors as safetensors and the rest as JSON, and rows that lie beside the checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from hsw.append_log import AppendLog
from hsw.directory import Directory
from hsw.errors import CorruptError
from hsw.memory import available_memory
from hsw.run.packed import join, split
from hsw.run.rows import Entry, check_rows, saved_log, write_rows

FORMAT = 3  # 1 had no checksum of the manifest itself; 3 has parts of several ranks, and is written for these alone
_FIRST = {"format", "meta", "sha256"}
_KEYS = {  # of a manifest, by its format; within the first, rows came later
    1: (_FIRST, _FIRST | {"rows"}),
    2: (_FIRST | {"rows", "checksum"},),
    3: (_FIRST | {"rows", "checksum", "ranks"},),
}
_LARGEST = {"manifest.json": 2**26, "state.json": 2**28}  # bytes: what is parsed is bounded
_FAULTS = (CorruptError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class _NewerFormat(CorruptError):
    """Written by a later hsw."""


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
        saved = rows_of(parent, previous.name) if previous and logs else {}
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
                content.append(here.read(name, _LARGEST.get(re.sub(r"-\d+", "", name), available_memory())))
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
    if set(manifest) not in _KEYS[written]:
        raise CorruptError(f"manifest.json must have the keys {', '.join(sorted(_KEYS[written][-1]))}")
    ranks = manifest.get("ranks", 1)
    if type(ranks) is not int or not 1 <= ranks < 10**6 or (ranks > 1) != (written > 2):
        raise CorruptError("manifest.json has a number of ranks that is none")
    if set(manifest["sha256"]) != {name for rank in range(ranks) for name in files_of(rank)}:
        raise CorruptError("manifest.json does not name the files of a checkpoint")
    step = meta.get("step", 0)
    if type(step) is not int or not 0 <= step < 2**62:
        raise CorruptError("manifest.json has a step that is no number of steps")
    return manifest


def rows_of(directory: Directory, checkpoint: str) -> dict[str, list[Entry]]:
    """The files of rows that a checkpoint refers to; a damaged one refers to none."""
    try:
        with directory.enter(checkpoint) as here:
            rows = json.loads(here.read("manifest.json", _LARGEST["manifest.json"]))["rows"]
        return {path: check_rows(directory, entries, read=False) for path, entries in rows.items()}
    except (FileNotFoundError, CorruptError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
