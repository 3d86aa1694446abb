"""A CUDA device that is not there, whose copies out of pinned memory are done as late as they may be.

What names a CUDA device gets the host's memory. A copy that waits for nothing is done when its event is waited for, or
at `finish`, and brings what the buffer holds by then: a buffer that is written too early shows as wrong numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda:0")


class SlowCopies(TorchFunctionMode):
    """Counts what crosses.

    Attributes:
        crossed: The source of each copy to the device: whether it was pinned, whether the copy waited for nothing, and
            its bytes.
        waits: How often an event that had a copy before it was waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossed: list[tuple[bool, bool, int]] = []
        self.waits = 0
        self.arrived: dict[int, Tensor] = {}  # by storage; kept, so that no address comes twice
        self._pinned: dict[int, Tensor] = {}
        self._under_way: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.pop("pin_memory", False):
            made = func(*args, **kwargs)
            self._pinned[made.untyped_storage()._cdata] = made
            return made
        if func == Tensor.is_cpu.__get__:
            return args[0].untyped_storage()._cdata not in self.arrived
        if func is Tensor.to and args[1:2] == (CUDA,):
            return self._copy(args[0], bool(kwargs.get("non_blocking")))
        return func(*args, **kwargs)

    def _copy(self, source: Tensor, non_blocking: bool) -> Tensor:
        pinned = source.untyped_storage()._cdata in self._pinned
        self.crossed.append((pinned, non_blocking, source.numel() * source.element_size()))
        there = torch.full_like(source, 255)
        self.arrived[there.untyped_storage()._cdata] = there
        self._under_way.append((source, there))
        if not (pinned and non_blocking):
            self.finish()
        return there

    def finish(self, number: int | None = None) -> None:
        """Do the first so many of the copies that are under way, or all of them."""
        with torch.inference_mode():  # what arrived may be of such a context
            for source, there in self._under_way[:number]:
                there.copy_(source)
        del self._under_way[:number]

    def event(self) -> Any:
        return _Event(self)


class _Event:
    """torch.cuda.Event's face."""

    def __init__(self, device: SlowCopies) -> None:
        self._device, self._last = device, None

    def record(self, stream: Any) -> None:
        self._last = self._device._under_way[-1][1] if self._device._under_way else None

    def synchronize(self) -> None:
        copies = [there for _, there in self._device._under_way]
        if self._last is not None:
            self._device.waits += 1
            places = [index for index, there in enumerate(copies) if there is self._last]
            self._device.finish(places[0] + 1 if places else 0)


@contextlib.contextmanager
def slow_copies() -> Iterator[SlowCopies]:
    """Within this context CUDA is such a device, for hsw.transfer."""
    device = SlowCopies()
    with (
        mock.patch("torch.cuda.Event", device.event),
        mock.patch("torch.cuda.current_stream", return_value=None),
        mock.patch("hsw.transfer._threads", type("Threads", (), {})()),
        device,
    ):
        yield device
