"""The vector adapter's way with observations and actions, for whoever steps the environments himself."""

from __future__ import annotations

from typing import Any

import numpy as np

from hsw.env.frames import FrameStack
from hsw.env.parts import without_tuples
from hsw.env.vector import VectorEnv
from hsw.errors import ConfigError
from hsw.spaces import SpaceSpec, leaves


class ObsStream:
    """Turns an environment's own observations into what a policy takes, and its actions back.

    Args:
        env: Of the same kind, frozen; it may be closed.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self._space = env.masks.stream_space if env.masks else env.raw_observation_space
        self._frames: FrameStack | None = None

    @property
    def stacks(self) -> bool:
        """Whether an observation is made of several frames."""
        return self._env.frame_stack > 1

    def begin(self, num_envs: int) -> None:
        """Episodes of N environments begin."""
        own = self._env.masks.rest if self._env.masks else self._space
        self._frames = FrameStack(own, num_envs, self._env.frame_stack) if self.stacks else None

    def batched(self, obs: Any) -> tuple[Any, bool]:
        """Observations as a batch of arrays, and whether it was a single one.

        Raises:
            ConfigError: If they are of another space.
        """
        batch, singles = _batched(without_tuples(obs), self._space, "obs")
        if len(set(singles)) != 1 or len({len(part) for part in leaves(batch)}) != 1:
            raise ConfigError("the parts of obs must be of one observation, or of batches of one size")
        return batch, singles[0]

    def __call__(self, batch: Any, fresh: np.ndarray) -> Any:
        """What the policy takes for a batch, [B, *shape] or a dict of them; fresh, [B], where an episode begins."""
        masks, mask = self._env.masks, None
        if masks:
            batch, mask = masks.batch(batch)
        if self._frames:
            batch = self._frames(batch, fresh)
        return self.normalized(masks.join(batch, mask) if masks else batch)

    def normalized(self, batch: Any) -> Any:
        """A batch whose frames are stacked, and which has its mask of actions, as the policy takes it."""
        masks, mask = self._env.masks, None
        if masks:
            batch, mask = masks.batch(batch)
        seen = self._env.normalized(batch)
        return _as_dtypes(masks.join(seen, mask) if masks else seen, self._env.observation_space)

    def actions_to_env(self, actions: np.ndarray) -> np.ndarray:
        """A policy's actions, [B, *action_shape], as the environments take them."""
        return self._env.actions_to_env(actions)


def _batched(obs: Any, space: SpaceSpec, name: str) -> tuple[Any, list[bool]]:
    if space.type == "Dict":
        if not isinstance(obs, dict) or not set(space.spaces) <= set(obs):
            raise ConfigError(f"{name} must be a dict with {', '.join(space.spaces)}")
        parts = {key: _batched(obs[key], part, f"{name}[{key!r}]") for key, part in space.spaces.items()}
        singles = [single for _, inner in parts.values() for single in inner]
        return {key: part for key, (part, _) in parts.items()}, singles
    values = np.asarray(obs, space.dtype)
    leading = values.ndim - len(space.shape)
    if leading not in (0, 1) or values.shape[leading:] != space.shape:
        raise ConfigError(f"{name} has the shape {values.shape}; it must be {space.shape}, or a batch of these")
    return (values if leading else values[None]), [leading == 0]


def _as_dtypes(batch: Any, space: SpaceSpec) -> Any:
    if space.type == "Dict":
        return {key: _as_dtypes(batch[key], part) for key, part in space.spaces.items()}
    return np.ascontiguousarray(batch, space.dtype)
