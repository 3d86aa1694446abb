"""A nested state taken apart into tensors, logs of rows and plain JSON, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hsw.append_log import AppendLog


def split(value: Any, path: str, tensors: dict[str, Tensor], logs: dict[str, AppendLog]) -> Any:
    """Move every tensor into `tensors` under its path, and every AppendLog into `logs`; what remains is JSON."""
    if isinstance(value, AppendLog):
        logs[path] = value
        return {"$rows": path, "begin": list(value.begin), "end": list(value.end)}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()  # clone: safetensors refuses shared memory
        return {"$tensor": path}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: split(item, f"{path}/{key}", tensors, logs) for key, item in value.items()}
        # JSON has no integer keys, and optimisers number their parameters.
        return {"$items": [[key, split(item, f"{path}/{key}", tensors, logs)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [split(item, f"{path}/{index}", tensors, logs) for index, item in enumerate(value)]
    return value


def join(value: Any, tensors: Mapping[str, Tensor], logs: Mapping[str, Any]) -> Any:
    """What split took apart.

    Args:
        value: What it returned.
        tensors: By path.
        logs: By path, a function (begin, end) that returns the AppendLog of that span.

    Raises:
        KeyError, TypeError, ValueError: If it is not of that form.
    """
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$rows" in value:
            return logs[value["$rows"]](value["begin"], value["end"])
        if "$items" in value:
            return {key: join(item, tensors, logs) for key, item in value["$items"]}
        return {key: join(item, tensors, logs) for key, item in value.items()}
    return [join(item, tensors, logs) for item in value] if isinstance(value, list) else value


def clone_state(state: Any) -> Any:
    """A deep copy of a nested state whose tensors share nothing with the original."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: clone_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [clone_state(value) for value in state]
    return state


def all_finite(state: Any) -> bool:
    """Whether every floating-point tensor of a nested state is finite."""
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(all_finite(value) for value in state.values())
    return all(map(all_finite, state)) if isinstance(state, list | tuple) else True
