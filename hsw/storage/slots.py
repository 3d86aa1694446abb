"""Slots of shared memory: what they hold, how a row is written there, and how a batch is taken out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.errors import ConfigError
from hsw.recycling import Recycler
from hsw.spaces import SpaceSpec, tree_map
from hsw.storage.records import Field, record_dtype
from hsw.storage.rows import share

SHARED_MEMORY = "/dev/shm"
_LARGE = 4096  # bytes of a row's field from which on it has a block of its own

# Dtype and shape of each field of a row, or a dict of them.
Layout = dict[str, Any]


def row_layout(observation_space: SpaceSpec, action_space: SpaceSpec, extras: Sequence[str]) -> Layout:
    """What a row holds.

    Args:
        observation_space, action_space: Of one environment.
        extras: Names of what the policy contributes, a number each.
    """
    actions = _of_space(action_space)
    layout = {"obs": _of_space(observation_space), "actions": actions, "last_actions": actions}
    layout |= dict.fromkeys(("rewards", "last_rewards", "episode_returns", *extras), ("float32", ()))
    layout |= dict.fromkeys(("terminateds", "truncateds", "valid", "starts"), ("bool", ()))
    # 0 where no episode ended; which weights acted
    return layout | dict.fromkeys(("episode_lengths", "versions"), ("int64", ()))


def _of_space(space: SpaceSpec) -> Any:
    if space.type == "Dict":
        return {key: _of_space(part) for key, part in space.spaces.items()}
    return space.dtype, space.shape


class Slots(dict[str, Any]):
    """Blocks by name in shared memory, [num_storages, T + 1, ...].

    The fields of a row that take few bytes lie together in a record, so that a row of K slots is written, and a batch
    is taken out, at one go. Blocks are views of them: each can be read and written by itself.

    Args:
        layout: Of a row.
        leading: num_storages and T + 1.
        parts: The memory, where there is some: the records', and each large field's.
    """

    def __init__(self, layout: Layout, leading: tuple[int, int], parts: Sequence[Tensor] = ()) -> None:
        self._made_of = layout, leading
        dtype, large = _records_and_large(layout)
        shapes = [((*leading, dtype.itemsize), "uint8"), *(((*leading, *shape), kind) for _, kind, shape in large)]
        self.parts = list(parts) or [share(torch.zeros(shape, dtype=_torch(kind))) for shape, kind in shapes]
        self._large = dict(zip([name for name, _, _ in large], self.parts[1:], strict=True))
        records = self.parts[0].numpy().view(dtype)[..., 0]
        self._dtype, self._items = dtype, records.reshape(-1).view(_item(dtype))
        self._places = np.arange(leading[1])[:, None] + np.arange(leading[0]) * leading[1]  # of rows, [T + 1, S]
        block = lambda name: self._large[name] if name in self._large else _view(self.parts[0], dtype, name)
        super().__init__(_tree(layout, block))
        self._views = tree_map(lambda block: block.numpy(), dict(self))
        self._recycler = Recycler()
        self._stage(0)

    @staticmethod
    def num_bytes(layout: Layout, leading: tuple[int, int]) -> int:
        """What so many rows take."""
        dtype, large = _records_and_large(layout)
        return math.prod(leading) * (dtype.itemsize + sum(_bytes(field) for field in large))

    def __reduce__(self) -> Any:
        return Slots, (*self._made_of, self.parts)

    def write(self, slots: Any, t: int, transition: Mapping[str, Any]) -> None:
        """Write row t of a slot, or of K slots: some of the fields, of one environment or [K, ...].

        Raises:
            KeyError: If there is no such field.
        """
        if np.ndim(slots) == 0 or len(transition) < len(self):
            for name, values in transition.items():
                tree_map(lambda view, new: _set(view, (slots, t), new), self._views[name], values)
            return
        if len(slots) != len(self._row):
            self._stage(len(slots))
        for name, values in transition.items():
            tree_map(lambda write, new: write((slots, t), new), self._writers[name], values)
        self._items[self._places[t].take(slots)] = self._row

    def _stage(self, num_slots: int) -> None:
        """Make the memory in which a row of so many slots is put together."""
        row = np.zeros(num_slots, self._dtype)
        self._row = row.view(self._items.dtype)
        self._writers = _tree(
            self._made_of[0],
            lambda name: partial(_set, self._large[name].numpy()) if name in self._large else partial(_put, row[name]),
        )

    def take(self, slots: Sequence[int]) -> dict[str, Any]:
        """A copy of these slots, by name, [T + 1, B, ...], as arrays and, where they are large, tensors."""
        records = self._items.take(self._places.take(slots, 1)).view(self._dtype)
        large = {name: time_major(block, slots, self._recycler) for name, block in self._large.items()}
        return _tree(self._made_of[0], lambda name: large[name] if name in large else records[name])


def _records_and_large(layout: Layout) -> tuple[np.dtype, list[Field]]:
    """The record of what is small, and the fields that are not."""
    fields = list(_fields(layout))
    large = [field for field in fields if _bytes(field) >= _LARGE]
    return record_dtype([field for field in fields if field not in large]), large


def _fields(layout: Layout, prefix: str = "") -> Iterator[Field]:
    """Those of a Dict are called name/key."""
    for name, part in layout.items():
        if isinstance(part, dict):
            yield from _fields(part, f"{prefix}{name}/")
        else:
            yield (f"{prefix}{name}", *part)


def _tree(layout: Layout, leaf: Callable[[str], Any], prefix: str = "") -> dict[str, Any]:
    """leaf(name) for each of the _fields."""
    return {
        name: _tree(part, leaf, f"{prefix}{name}/") if isinstance(part, dict) else leaf(f"{prefix}{name}")
        for name, part in layout.items()
    }


def _bytes(field: Field) -> int:
    return np.dtype(field[1]).itemsize * math.prod(field[2])


def _torch(dtype: str) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _item(dtype: np.dtype) -> np.dtype:
    """A record as one thing without fields, which NumPy copies as a whole."""
    return np.dtype((np.void, dtype.itemsize))


def _view(records: Tensor, dtype: np.dtype, name: str) -> Tensor:
    """A field of records, uint8 [..., itemsize], as a tensor that shares their memory."""
    assert dtype.fields is not None
    part, offset = dtype.fields[name][:2]
    base, shape = part.base, part.shape
    flat = records[..., offset : offset + part.itemsize].view(_torch(base.name))
    return torch.unflatten(flat, -1, shape) if shape else flat[..., 0]


def _put(row: np.ndarray, where: Any, new: Any) -> None:
    """Set a field of the row that is put together."""
    if type(new) is not np.ndarray:
        new = _array(new)
    row[...] = new if new.shape == row.shape else new.reshape(row.shape)


def _set(view: np.ndarray, where: tuple[Any, int], new: Any) -> None:
    """Set a field of a row of slots where it belongs; where: the slots, and t."""
    view[where] = np.reshape(_array(new), (*np.shape(where[0]), *view.shape[2:]))


def _array(new: Any) -> np.ndarray:
    return new.detach().cpu().numpy() if isinstance(new, Tensor) else np.asarray(new)


def check_memory(size: int, num_storages: int) -> None:
    """Refuse blocks of so many bytes in all that do not fit into shared memory.

    Raises:
        ConfigError: With the number of slots that do.
    """
    try:
        stat = os.statvfs(SHARED_MEMORY)
    except OSError:  # not Linux
        return
    free = stat.f_bavail * stat.f_frsize
    if size > free:
        per_slot = size / num_storages
        raise ConfigError(
            f"storage.num_storages={num_storages} needs {size / 2**20:.0f} MiB of shared memory, and "
            f"{free / 2**20:.0f} MiB are free in {SHARED_MEMORY}; at most {int(free / per_slot)} slots fit"
        )


def time_major(block: Any, slots: Sequence[int], recycler: Recycler | None = None) -> Tensor:
    """A copy of these slots of a block, or of a list of tensors, [T + 1, B, ...]."""
    parts = [block[slot].detach() for slot in slots]
    if recycler is None:
        return torch.stack(parts, 1)
    num_rows, *shape = parts[0].shape
    return torch.stack(parts, 1, out=recycler.empty((num_rows, len(parts), *shape), parts[0].dtype))


class Numbers:
    """A queue of slots' numbers that are given out once; what comes back is forgotten."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = iter(numbers)

    def get(self) -> int:
        return next(self.numbers)

    def put(self, number: int) -> None:
        return
