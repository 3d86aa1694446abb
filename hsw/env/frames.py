"""Frame stacking inside the vector adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hsw.spaces import SpaceSpec


class FrameStack:
    """The last k observations of each environment as one; a new episode starts with k copies of its first.

    Two-dimensional frames are stacked along a new leading axis, vectors and images along their channel axis.

    Args:
        spec: The space of one frame, a Box.
        num_envs: N.
        size: k.

    Attributes:
        axis: Along which axis of an observation.
    """

    def __init__(self, spec: SpaceSpec, num_envs: int, size: int) -> None:
        if spec.type != "Box":
            raise ValueError(f"frame_stack needs a Box observation, not {spec.type}")
        channels_last = len(spec.shape) == 3 and spec.shape[-1] < spec.shape[0]
        self.axis = len(spec.shape) - 1 if channels_last else 0
        self._new_axis = len(spec.shape) == 2
        self.frames = np.zeros((size, num_envs, *spec.shape), spec.dtype)
        low, high = (self._stack_bound(bound, size) for bound in (spec.low, spec.high))
        self.spec = replace(spec, shape=self._joined(self.frames[:, :1]).shape[1:], low=low, high=high)

    def __call__(self, obs: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Push obs, [N, *shape]; where fresh, [N], an episode begins and its first frame fills the stack."""
        self.frames[:-1] = self.frames[1:]
        self.frames[-1] = obs
        self.frames[:-1, fresh] = obs[fresh]
        return self._joined(self.frames)

    def _joined(self, frames: np.ndarray) -> np.ndarray:
        if self._new_axis:
            return np.stack(list(frames), axis=1)
        return np.concatenate(list(frames), axis=1 + self.axis)

    def _stack_bound(self, bound: Any, size: int) -> Any:
        if np.ndim(bound) == 0:
            return bound
        frames = [np.asarray(bound)] * size
        return (np.stack(frames) if self._new_axis else np.concatenate(frames, self.axis)).tolist()


def picture(rendered: Any, obs: Any) -> np.ndarray | None:
    """What the first environment looks like, uint8 [H, W, 3]: rendered, [N, H, W, 3], or else its pixel observation."""
    if rendered is not None:
        return np.asarray(rendered[0])
    if isinstance(obs, dict) or obs is None or obs.ndim != 4 or obs.dtype != np.uint8:
        return None
    pixels: np.ndarray = obs[0]
    if pixels.shape[0] < pixels.shape[-1]:  # channels first; the last of stacked frames is the newest
        pixels = pixels.transpose(1, 2, 0)
    return pixels[..., -3:] if pixels.shape[-1] == 3 else pixels[..., -1:].repeat(3, -1)
