"""The learner's weights on their way to actors: one version at a time, whole, as flat arrays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from hsw.agent.protocols import Weighted
from hsw.errors import NonFiniteError
from hsw.storage.rows import share


class SharedWeights:
    """A policy's weights and buffers by version, in shared memory; a reader never sees half of one version.

    The writer fills the half that the present version does not use and then counts up, so a reader's copy is whole
    unless the version changed meanwhile; then it copies again. Numbers keep their dtypes: batch norm counts in int64.

    Args:
        policy: Whose weights.
    """

    def __init__(self, policy: Weighted) -> None:
        sizes = {dtype: sum(map(torch.numel, tensors)) for dtype, tensors in _tensors(policy).items()}
        self._halves = {dtype: share(torch.zeros(2, size, dtype=dtype)) for dtype, size in sizes.items()}
        self._version = share(torch.zeros((), dtype=torch.int64))

    @property
    def version(self) -> int:
        return int(self._version)

    @property
    def num_bytes(self) -> int:
        """Of one version."""
        return sum(halves[0].numel() * halves.element_size() for halves in self._halves.values())

    def publish(self, policy: Weighted) -> None:
        """Make the policy's weights the next version. One process publishes.

        Raises:
            NonFiniteError: If they hold NaN or infinite numbers; no actor gets to see those.
        """
        version = self.version + 1
        for dtype, tensors in _tensors(policy).items():
            whole = torch.cat([tensor.detach().flatten() for tensor in tensors])
            if dtype.is_floating_point and not torch.isfinite(whole.sum(dtype=torch.float32)):
                raise NonFiniteError("the networks hold NaN or infinite numbers")
            self._halves[dtype][version % 2].copy_(whole)
        self._version.fill_(version)

    def fetch(self, policy: Weighted) -> int:
        """Copy the newest weights into a policy. Returns their version."""
        version, copies = self._copies()
        _fill(policy, copies)
        return version

    def flat(self) -> tuple[int, np.ndarray]:
        """The newest version, and its weights as one array of bytes, which fill takes where this memory is not seen."""
        version, copies = self._copies()
        parts = [copies[dtype].view(torch.uint8).numpy() for dtype in _in_order(copies)]
        return version, np.concatenate(parts or [np.zeros(0, np.uint8)])

    def _copies(self) -> tuple[int, dict[torch.dtype, Tensor]]:
        while True:
            version = self.version
            copies = {dtype: halves[version % 2].clone() for dtype, halves in self._halves.items()}
            if self.version == version:
                return version, copies


def fill(policy: Weighted, flat: np.ndarray) -> None:
    """Copy what SharedWeights.flat has given into a policy of the same form."""
    parts, begin = {}, 0
    tensors = _tensors(policy)
    whole = torch.from_numpy(np.array(flat))  # a copy: what comes from elsewhere may not be written to
    for dtype in _in_order(tensors):
        size = sum(map(torch.numel, tensors[dtype])) * dtype.itemsize
        parts[dtype] = whole[begin : begin + size].view(dtype)
        begin += size
    _fill(policy, parts)


def _fill(policy: Weighted, flat: dict[torch.dtype, Tensor]) -> None:
    for dtype, tensors in _tensors(policy).items():
        parts = torch.split(flat[dtype], [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.data.copy_(part.view(tensor.shape))


def _in_order(by_dtype: Iterable[torch.dtype]) -> list[torch.dtype]:
    """The widest numbers first, so that each begins at a multiple of its size."""
    return sorted(by_dtype, key=lambda dtype: (-dtype.itemsize, str(dtype)))


def _tensors(policy: Weighted) -> dict[torch.dtype, list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in (*policy.parameters(), *policy.buffers()):
        found.setdefault(tensor.dtype, []).append(tensor)
    return found
