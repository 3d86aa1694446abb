"""From the host's memory to a device's: what belongs together is packed, and crosses in one copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes; of every part within a packed batch, so that it can be viewed as any dtype
_threads = threading.local()


def to_device(tree: Any, device: torch.device) -> Any:
    """The same tree with tensors on a device.

    On the CPU these are views of the same memory. Elsewhere all that is the host's crosses in one copy, and its parts
    are views of what arrived; to CUDA that copy is out of pinned memory, and nothing waits for it but later work on the
    same stream. The host's arrays may be written again at once.

    Args:
        tree: Arrays and tensors in dicts and tuples. Tensors that are on the device already stay what they are.
        device: Where to.
    """
    if device.type == "cpu":
        return _on_cpu(tree)
    parts = [part for leaf in _leaves(tree) if (part := _tensor(leaf)).is_cpu]
    offsets, size = _layout(parts)
    if not parts:
        return tree
    staging = _staging(device) if device.type == "cuda" else None
    packed = torch.empty(size, dtype=torch.uint8) if staging is None else staging.take(size)
    for part, offset in zip(parts, offsets, strict=True):
        _view(packed, offset, part).copy_(part.detach())
    arrived = packed.to(device) if staging is None else staging.send(packed)
    views = iter([_view(arrived, offset, part) for part, offset in zip(parts, offsets, strict=True)])
    return _mapped(lambda leaf: next(views) if _tensor(leaf).is_cpu else leaf, tree)


class Staging:
    """Pinned buffers that take turns. One is written again only when the copy out of it is done.

    Args:
        device: Where copies go, on the current stream there.
        num_buffers: One batch is packed while the copies of the others may still be under way.
    """

    def __init__(self, device: torch.device, num_buffers: int = 2) -> None:
        self.device = device
        self._buffers = [torch.empty(0, dtype=torch.uint8) for _ in range(num_buffers)]
        event: Any = torch.cuda.Event
        self._copied = [event() for _ in range(num_buffers)]
        self._turn = 0

    def take(self, size: int) -> Tensor:
        """The next buffer, uint8 [size], once it may be written."""
        self._turn = (self._turn + 1) % len(self._buffers)
        self._copied[self._turn].synchronize()  # returns at once for one that was never recorded
        if len(self._buffers[self._turn]) < size:
            # A power of two, so that batches of varying sizes soon fit; it outlives an inference mode that it began in.
            with torch.inference_mode(False):
                whole = torch.empty(1 << (size - 1).bit_length(), dtype=torch.uint8, pin_memory=True)
            self._buffers[self._turn] = whole
        return self._buffers[self._turn][:size]

    def send(self, packed: Tensor) -> Tensor:
        """Begin to copy what take gave last. Returns the bytes on the device."""
        arrived = packed.to(self.device, non_blocking=True)
        self._copied[self._turn].record(torch.cuda.current_stream(self.device))
        return arrived


def _staging(device: torch.device) -> Staging:
    """This thread's: several learner threads load batches at once."""
    kept: dict[torch.device, Staging] = _threads.__dict__.setdefault("kept", {})
    if device not in kept:
        kept[device] = Staging(device)
    return kept[device]


def _layout(parts: list[Tensor]) -> tuple[list[int], int]:
    """Where each part begins in a packed batch, and its size, in bytes."""
    offsets, size = [], 0
    for part in parts:
        offsets.append(size)
        size += -(-part.numel() * part.element_size() // _ALIGNMENT) * _ALIGNMENT
    return offsets, size


def _view(packed: Tensor, offset: int, part: Tensor) -> Tensor:
    """The place of a part in a packed batch, as a tensor like it, in C order."""
    return packed[offset : offset + part.numel() * part.element_size()].view(part.dtype).view(part.shape)


def _tensor(leaf: Any) -> Tensor:
    return leaf if isinstance(leaf, Tensor) else torch.from_numpy(leaf)


def _on_cpu(tree: Any) -> Any:
    if type(tree) is np.ndarray:  # first: most are
        return torch.from_numpy(tree)
    if isinstance(tree, dict):
        return {key: _on_cpu(part) for key, part in tree.items()}
    return tuple(map(_on_cpu, tree)) if isinstance(tree, tuple) else _tensor(tree)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | tuple):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(part)
    else:
        yield tree


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if type(tree) is np.ndarray:
        return function(tree)
    if isinstance(tree, dict):
        return {key: _mapped(function, part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_mapped(function, part) for part in tree)
    return function(tree)
