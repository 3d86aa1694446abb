"""Writing rows into storage memory, whatever form they come in."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.spaces import leaves, tree_map


class RowWriter:
    """Writes what a loop hands over, arrays or tensors, into a storage's tensors.

    On the CPU it writes through NumPy views of them, at a fifth of torch's cost for a small row.

    Args:
        device: Where the storage's tensors are.
        num_envs: N.
    """

    def __init__(self, device: torch.device, num_envs: int) -> None:
        self.device, self.num_envs = device, num_envs
        self._on_cpu = device.type == "cpu"

    def views(self, memory: Any) -> Any:
        """What write takes for a tensor, or for a dict of them."""
        return tree_map(lambda tensor: tensor.numpy() if self._on_cpu else tensor, memory)

    def write(self, rows: Any, t: int, new: Any) -> None:
        """Set row t of observations or actions, in the shape of their space."""
        if isinstance(rows, dict):
            for key, part in rows.items():
                self.write(part, t, new[key])
            return
        new = self._native(new)
        rows[t] = new if new.shape == rows.shape[1:] else new.reshape(rows.shape[1:])

    def flat(self, values: Any) -> Any:
        """Per-step values as [N], whether they come as [N], [N, 1] or one for all."""
        if type(values) is np.ndarray and values.ndim == 1 and self._on_cpu:
            return values
        values = self._native(values)
        return values.reshape(self.num_envs) if values.ndim > 1 else values

    def _native(self, values: Any) -> Any:
        if not self._on_cpu:
            return torch.as_tensor(values, device=self.device)
        if isinstance(values, Tensor):
            return values.numpy() if values.is_cpu and not values.requires_grad else values.detach().cpu().numpy()
        return np.asarray(values)


def share(tensor: Tensor) -> Tensor:
    """The same tensor, in memory that other processes see too."""
    shared: Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def warn_if_reset(cut: Tensor, next_obs: Any, obs: Any) -> None:
    """A caller that leaves valid out may be one whose envs reset within the step; then V_next is another episode's.

    Args:
        cut: Where the step before was truncated, [N].
        next_obs: Where it led, [N, ...], or a dict of them.
        obs: What the caller takes for it.
    """
    pairs = zip(leaves(next_obs), leaves(obs), strict=True)
    if cut.any() and not all(torch.equal(a[cut], torch.as_tensor(b, device=a.device)[cut]) for a, b in pairs):
        warnings.warn(
            "after a truncation obs is not the next_obs of the step before: values[t + 1] will bootstrap from the "
            "next episode; step the environments in NEXT_STEP mode and pass valid",
            stacklevel=4,
        )
