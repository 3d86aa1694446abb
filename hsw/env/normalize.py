"""Running statistics of observations and of the discounted return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsw.moments import merge, merge_ranks
from hsw.ranks import current
from hsw.spaces import SpaceSpec


class RunningMoments:
    """Mean and variance of a stream of rows, in float64.

    Of several ranks, each knows the rows of all that were there when they last shared, and its own since.

    Args:
        shape: Shape of one row.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._take(np.zeros(shape), np.ones(shape), 0.0)

    def _take(self, mean: NDArray[np.float64], var: NDArray[np.float64], count: float) -> None:
        self.mean, self.var, self.count = mean, var, count
        self._shared = mean, var, count
        self._own = np.zeros_like(mean), np.ones_like(var), 0.0  # of a rank among others

    def update(self, rows: np.ndarray) -> None:
        """Merge rows, [K, *shape]; K may be 0."""
        new = len(rows)
        if new == 0:
            return
        mean, squares = rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64) * new
        self.mean, self.var, self.count = merge(self.mean, self.var, self.count, mean, squares, new)
        if current().size > 1:
            self._own = merge(*self._own, mean, squares, new)

    def told(self) -> np.ndarray:
        """What merge_ranks takes of this rank's own rows, [1 + 2 D]."""
        mean, var, count = self._own
        return np.concatenate([[count], np.ravel(mean), np.ravel(var * count)])

    def take(self, parts: np.ndarray) -> None:
        """Take over what every rank has told, [size, 1 + 2 D]."""
        self._take(*merge_ranks(*self._shared, parts))

    def state_dict(self) -> dict[str, Any]:
        return _state(self.mean, self.var, self.count)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._take(*_moments(state))

    def unshared(self) -> dict[str, Any]:
        """What goes on to `told`, and from what `take` starts."""
        return {"shared": _state(*self._shared), "own": _state(*self._own)}

    def load_unshared(self, state: dict[str, Any]) -> None:
        self._shared, self._own = _moments(state["shared"]), _moments(state["own"])


def _state(mean: Any, var: Any, count: float) -> dict[str, Any]:
    return {"mean": torch.tensor(mean), "var": torch.tensor(var), "count": count}


def _moments(state: dict[str, Any]) -> tuple[Any, Any, float]:
    return state["mean"].numpy(), state["var"].numpy(), state["count"]


def share(moments: Sequence[RunningMoments]) -> None:
    """Make the rows that any rank has seen all ranks', who know the same bits afterwards; all of them call this."""
    if current().size == 1 or not moments:
        return
    told = [one.told() for one in moments]
    rows = current().stack(torch.from_numpy(np.concatenate(told))).numpy()
    ends = np.cumsum([len(part) for part in told])[:-1]
    for one, parts in zip(moments, np.split(rows, ends, axis=1), strict=True):
        one.take(parts)


class ObsNormalizer:
    """(obs - mean) / std, clipped to ±10; statistics over the observations from which an action is taken.

    Args:
        shape: Shape of one observation.
        training: False freezes the statistics.
    """

    clip = 10.0

    def __init__(self, shape: tuple[int, ...], training: bool = True) -> None:
        self.moments = RunningMoments(shape)
        self.training = training

    def __call__(self, obs: np.ndarray, starts_row: np.ndarray | None = None) -> np.ndarray:
        """Normalise obs, [N, *shape]; only rows in which an action will count enter the statistics."""
        if self.training and starts_row is not None:
            self.moments.update(obs[starts_row])
        scaled = (obs - self.moments.mean) / np.sqrt(self.moments.var + 1e-8)
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)


class RewardNormalizer:
    """r / std(G), clipped to ±10, with G_t = r_t + discount * G_{t-1} per environment.

    Rewards are scaled and not centred, so that their sign stays (Engstrom et al. 2020, arXiv:2005.12729).

    Args:
        num_envs: N.
        discount: Of the return G.
    """

    clip = 10.0

    def __init__(self, num_envs: int, discount: float) -> None:
        self.moments = RunningMoments()
        self.discount = discount
        self.returns = np.zeros(num_envs)

    def __call__(self, rewards: np.ndarray, dones: np.ndarray, valid: np.ndarray) -> np.ndarray:
        self.returns = self.returns * self.discount + rewards
        self.moments.update(self.returns[valid])
        self.returns[dones] = 0.0
        return np.clip(rewards / np.sqrt(self.moments.var + 1e-8), -self.clip, self.clip)

    def state_dict(self) -> dict[str, Any]:
        return {**self.moments.state_dict(), "returns": torch.tensor(self.returns)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moments.load_state_dict(state)
        self.returns = state["returns"].numpy().copy()


def make_obs_normalizers(spec: SpaceSpec, training: bool) -> dict[str, ObsNormalizer]:
    """A normaliser for each part of a Dict, or one under "" for the whole observation.

    Raises:
        ValueError: If a part is no vector of numbers.
    """
    parts = spec.spaces if spec.type == "Dict" else {"": spec}
    for key, part in parts.items():
        if part.type != "Box" or part.is_image:
            raise ValueError(f"normalize_obs needs vectors of numbers, and obs{f'[{key!r}]' if key else ''} is not one")
    return {key: ObsNormalizer(part.shape, training) for key, part in parts.items()}


def normalized_space(spec: SpaceSpec) -> SpaceSpec:
    """The space of what the normalisers return."""
    if spec.type == "Dict":
        return replace(spec, spaces={key: normalized_space(part) for key, part in spec.spaces.items()})
    return replace(spec, dtype="float32", low=-ObsNormalizer.clip, high=ObsNormalizer.clip)
