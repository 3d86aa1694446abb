"""Memory of large tensors that is used again, so that the system need not provide and clear its pages each time.

Of an encoder's update on 81 x 8 Atari stacks that is 3 % of the CPU time (-0.4 to 10 % in 9 pairs, seed 1, on a shared
two-core AMD EPYC) and a third of the page faults: `python benchmarks/sides/hsw_recycling.py`.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import torch
from torch import Tensor

_WORTH = 2**20  # bytes; what is smaller the allocator keeps by itself
_MOST = 4  # sizes, and free pieces of each


class Recycler:
    """Gives out uninitialised tensors on the CPU. One's memory comes again once nothing refers to it any more.

    Views, arrays and graphs of autograd count as references like the tensor itself. Threads may share a recycler.
    """

    def __init__(self) -> None:
        # A deque's append and pop need no lock, which a reference that dies while it is held would wait for.
        self._free: dict[int, deque[Tensor]] = {}

    def __reduce__(self) -> tuple[type[Recycler], tuple[()]]:
        return Recycler, ()  # a copy, in this process or another, begins with nothing

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of this shape, its numbers whatever stood there."""
        size = math.prod(shape) * dtype.itemsize
        if size < _WORTH:
            return torch.empty(shape, dtype=dtype)
        if len(self._free) > _MOST:
            self._free.clear()
        free = self._free.setdefault(size, deque(maxlen=_MOST))
        try:
            memory = free.pop()
        except IndexError:
            memory = torch.empty(size, dtype=torch.uint8)
        array = memory.numpy()  # an object of its own, which whatever is made of it keeps alive
        weakref.finalize(array, free.append, memory).atexit = False
        return torch.from_numpy(array).view(dtype).view(shape)
