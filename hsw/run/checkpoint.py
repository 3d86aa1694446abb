"""Checkpoints: tensors as safetensors, the rest as JSON, a checksummed manifest, and a rename that makes them whole.

A checkpoint is a folder `000042` with tensors.safetensors, state.json and manifest.json. It is written under a name
that no loader matches, synced, and renamed. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hsw.errors import CorruptError, ResourceError

FORMAT = 1


def save_checkpoint(folder: Path, state: dict[str, Any], meta: dict[str, Any], keep: int = 2) -> Path:
    """Write a state atomically as the folder's newest checkpoint, and delete all but the newest `keep`.

    Args:
        folder: Of the checkpoints.
        state: Nested dicts and lists of tensors and JSON values.
        meta: What the manifest tells without reading the state, such as the step.
        keep: Number of checkpoints kept.

    Raises:
        ResourceError: If the disk does not take it; what was there before is untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = list_checkpoints(folder)
    number = numbers[-1] + 1 if numbers else 1
    final, temporary = folder / f"{number:06d}", folder / f".writing-{number:06d}-{os.getpid()}"
    try:
        write_state(temporary, state, meta)
        os.rename(temporary, final)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ResourceError(f"cannot write the checkpoint {final}: {error.strerror or error}") from error
    for old in numbers[: max(0, len(numbers) + 1 - keep)]:
        shutil.rmtree(folder / f"{old:06d}", ignore_errors=True)
    return final


def load_newest(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Read the newest checkpoint that is whole.

    Returns:
        The state, its meta, and one sentence for every newer checkpoint that had to be passed over.

    Raises:
        CorruptError: If there is none that can be read, or the newest is of a later format.
    """
    complaints: list[str] = []
    for number in reversed(list_checkpoints(folder)):
        try:
            return *read_state(folder / f"{number:06d}"), complaints
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


def sweep_unfinished(folder: Path) -> None:
    """Delete what a killed process left half-written; only the owner of the run folder may."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(".writing-"):
                shutil.rmtree(path, ignore_errors=True)


def write_state(folder: Path, state: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write a state and its manifest into a new folder, synced to the disk."""
    from safetensors.torch import save

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_split(state, "", tensors), allow_nan=True)
    files = {"tensors.safetensors": save(tensors), "state.json": plain.encode()}
    checksums = {}
    for name, content in files.items():
        _write_synced(folder / name, content)
        checksums[name] = hashlib.sha256(content).hexdigest()
    manifest = {"format": FORMAT, "meta": meta, "sha256": checksums}
    _write_synced(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    _sync(folder)


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a state and its meta.

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
        tensors = load(content["tensors.safetensors"])
        return _join(json.loads(content["state.json"]), tensors), manifest["meta"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CorruptError):
            raise
        raise CorruptError(f"checkpoint {folder} is damaged: {type(error).__name__}: {error}") from error


def clone_state(state: Any) -> Any:
    """A deep copy of a nested state whose tensors share nothing with the original."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: clone_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [clone_state(value) for value in state]
    return state


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move every tensor into `tensors` under its path; what remains is JSON."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()  # clone: safetensors refuses shared memory
        return {"$tensor": path}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _split(item, f"{path}/{key}", tensors) for key, item in value.items()}
        # JSON has no integer keys, and optimisers number their parameters.
        return {"$items": [[key, _split(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$items" in value:
            return {key: _join(item, tensors) for key, item in value["$items"]}
        return {key: _join(item, tensors) for key, item in value.items()}
    return [_join(item, tensors) for item in value] if isinstance(value, list) else value


def all_finite(state: Any) -> bool:
    """Whether every floating-point tensor of a nested state is finite."""
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(all_finite(value) for value in state.values())
    return all(map(all_finite, state)) if isinstance(state, list | tuple) else True


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
