"""Two states, or two rows of metrics, bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.append_log import AppendLog
from hsw.errors import shortened


@dataclass(frozen=True)
class Difference:
    """One place where what is saved is not what the rerun has.

    Attributes:
        key: Of the tensor or value, in the state, its parts joined by slashes.
        index: Of the first number that differs, of a tensor.
        saved, rerun: Both values.
        count, of: How many numbers of the tensor differ.
    """

    key: str
    index: tuple[int, ...] | None
    saved: Any
    rerun: Any
    count: int = 1
    of: int = 1

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index is not None else ""
        more = f" ({self.count:,} of its {self.of:,} numbers differ)" if self.index is not None else ""
        return f"{self.key}{place} is {_short(self.saved)} and comes out as {_short(self.rerun)}{more}"


def differences(saved: Any, rerun: Any, key: str = "") -> Iterator[Difference]:
    """The places where two nested states are not the same, in the order in which they are saved."""
    if isinstance(saved, AppendLog) and isinstance(rerun, AppendLog):
        saved, rerun = ({str(n): column for n, column in enumerate(columns(log))} for log in (saved, rerun))
    if isinstance(saved, Tensor) and isinstance(rerun, Tensor):
        yield from _of_tensors(saved, rerun, key)
    elif isinstance(saved, dict) and isinstance(rerun, dict):
        for name in [*saved, *(name for name in rerun if name not in saved)]:
            inner = f"{key}/{name}" if key else str(name)
            if name not in saved or name not in rerun:
                yield Difference(inner, None, saved.get(name, "missing"), rerun.get(name, "missing"))
            else:
                yield from differences(saved[name], rerun[name], inner)
    elif isinstance(saved, list | tuple) and isinstance(rerun, list | tuple) and len(saved) == len(rerun):
        for number, (one, other) in enumerate(zip(saved, rerun, strict=True)):
            yield from differences(one, other, f"{key}/{number}")
    elif not _same(saved, rerun):
        yield Difference(key, None, saved, rerun)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    return type(one) is type(other) and bool(one == other)


def _of_tensors(saved: Tensor, rerun: Tensor, key: str) -> Iterator[Difference]:
    if saved.dtype != rerun.dtype or saved.shape != rerun.shape:
        yield Difference(key, None, f"{saved.dtype} {tuple(saved.shape)}", f"{rerun.dtype} {tuple(rerun.shape)}")
        return
    if saved.numel() == 0:
        return
    size = saved.element_size()
    bits = [_bytes(one).reshape(-1, size) for one in (saved, rerun)]  # NaN is NaN, and 0 is not -0
    unequal = (bits[0] != bits[1]).any(1)
    if unequal.any():
        first = int(unequal.argmax())
        index = tuple(int(place) for place in np.unravel_index(first, saved.shape)) if saved.ndim else ()
        values = saved.flatten()[first].item(), rerun.flatten()[first].item()
        yield Difference(key, index, *values, int(unequal.sum()), saved.numel())


def _bytes(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return array


def columns(log: AppendLog) -> list[Tensor]:
    """The rows of an AppendLog that count, uint8 [rows, bytes] of each column, however they lie in files."""
    made: list[Tensor | None] = [None] * len(log.begin)
    for piece in log.pieces():
        offset = 0
        for n, (begin, end) in enumerate(zip(piece.begin, piece.end, strict=True)):
            low, high = max(begin, log.begin[n]), min(end, log.end[n])
            if low < high:
                column = made[n]
                if column is None:
                    column = made[n] = torch.zeros(log.end[n] - log.begin[n], piece.rows.shape[1], dtype=torch.uint8)
                rows = piece.rows[offset + low - begin : offset + high - begin]
                column[low - log.begin[n] : high - log.begin[n]] = rows
            offset += end - begin
    return [torch.zeros(0, 0, dtype=torch.uint8) if column is None else column for column in made]


def digest(state: Any) -> str:
    """A checksum of a nested state, the same for equal ones."""
    whole = hashlib.sha256()
    _feed(whole, state)
    return whole.hexdigest()


def _feed(whole: Any, value: Any) -> None:
    if isinstance(value, AppendLog):
        _feed(whole, columns(value))
    elif isinstance(value, Tensor):
        whole.update(f"{value.dtype}{tuple(value.shape)}".encode())
        whole.update(_bytes(value).data)
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            whole.update(f"{name!r}:".encode())
            _feed(whole, value[name])
    elif isinstance(value, list | tuple):
        whole.update(f"[{len(value)}".encode())
        for part in value:
            _feed(whole, part)
    else:
        whole.update(json.dumps(value).encode())


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row of metrics is the same whenever it is logged: all but whose it is, and times."""
    return {name: value for name, value in row.items() if name not in ("time", "run") and not name.startswith("speed/")}


def _short(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else shortened(value)
