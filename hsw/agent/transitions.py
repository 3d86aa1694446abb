"""One form of transitions, out of what each loop learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hsw.algorithm.intrinsic import Transitions
from hsw.errors import ConfigError
from hsw.spaces import tree_map


def of_rollout(storage: Any) -> Transitions:
    """Those of a full rollout, [T * N]; obs has a row more, because row t + 1 is where step t led.

    Raises:
        ConfigError: If the storage does not hold them by name.
    """
    try:
        obs = storage.obs
        actions, rewards, terminateds, valid = (
            getattr(storage, name) for name in ("actions", "rewards", "terminateds", "valid")
        )
    except AttributeError as error:
        raise ConfigError(f"an intrinsic reward needs a storage with {error.name}, as a RolloutStorage has") from error
    return _windows(obs, actions, rewards, terminateds, valid, continued=True)


def of_windows(batch: Any) -> Transitions:
    """Those of a batch of windows, [T * B]; the last row's step belongs to the next one."""
    names = ("actions", "rewards", "terminateds", "valid")
    return _windows(batch["obs"], *(batch[name][:-1] for name in names))


def _windows(
    obs: Any, actions: Tensor, rewards: Tensor, terminateds: Tensor, valid: Tensor, continued: bool = False
) -> Transitions:
    flat = [part.flatten(0, 1) for part in (actions, rewards, terminateds, valid)]
    here, there = (tree_map(lambda part, cut=cut: part[cut].flatten(0, 1), obs) for cut in (slice(-1), slice(1, None)))
    return Transitions(here, flat[0], flat[1], there, flat[2], flat[3], valid.shape[1], continued)


def of_replay(batch: Any) -> Transitions:
    """Those of a batch that was drawn, [B]."""
    valid = torch.ones_like(batch.terminateds)
    return Transitions(batch.obs, batch.actions, batch.rewards, batch.next_obs, batch.terminateds, valid)


def replaced(batch: Any, **changes: Any) -> Any:
    """A batch, a dataclass or a dict with named fields, with some of its fields changed."""
    return type(batch)({**batch, **changes}) if isinstance(batch, dict) else replace(batch, **changes)
