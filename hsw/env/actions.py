"""A policy's actions as an environment takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hsw.spaces import SpaceSpec


class ActionCast:
    """Casts actions once, on their way to the environments.

    Policies see numbers in float32 (see hsw.spaces.policy_space) and choices in int64 that count from 0; environments
    get the dtype of their space. Numbers are clipped to the bounds, and rounded where the space has whole numbers.

    Args:
        space: The environment's own.
        start: First action of a Discrete or MultiDiscrete space.
        dtype: The environment's, of a space that is read as int64; None is the space's.
    """

    def __init__(self, space: SpaceSpec, start: Any = 0, dtype: Any = None) -> None:
        self._shape, self._is_box = space.shape, space.type == "Box"
        self._dtype = np.dtype(dtype or space.dtype)
        self._start = start if np.any(start) else None
        if self._is_box:
            self._is_whole = self._dtype.kind != "f"
            # Of numbers, the bounds are in the dtype: the nearest float32 to 0.1 is beyond a float64 0.1.
            self._bounds = [
                np.asarray(b, np.float64 if self._is_whole else self._dtype) for b in (space.low, space.high)
            ]

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of what the environments get, as a tensor."""
        return torch.from_numpy(np.empty(0, self._dtype)).dtype

    def __call__(self, actions: Any, num_envs: int) -> np.ndarray:
        """Cast actions, [N, *shape] in any numbers. Returns an array that is no view of them."""
        actions = np.asarray(actions).reshape(num_envs, *self._shape)
        cast: np.ndarray
        if not self._is_box:
            cast = (actions if self._start is None else actions.astype(np.int64) + self._start).astype(self._dtype)
        elif self._is_whole:
            cast = np.clip(np.rint(actions), *self._bounds).astype(self._dtype)
        else:
            cast = np.clip(actions.astype(self._dtype), *self._bounds)
        return cast

    def tensors(self, actions: torch.Tensor) -> torch.Tensor:
        """The same of a policy's actions, [B, *shape], for a graph."""
        actions = actions.reshape(-1, *self._shape)  # len would fix the size of a graph's batch
        if not self._is_box:
            return (actions if self._start is None else actions.long() + torch.as_tensor(self._start)).to(
                self.torch_dtype
            )
        low, high = (torch.as_tensor(bound) for bound in self._bounds)
        if self._is_whole:
            return torch.minimum(torch.maximum(actions.double().round(), low), high).to(self.torch_dtype)
        return torch.minimum(torch.maximum(actions.to(self.torch_dtype), low), high)
