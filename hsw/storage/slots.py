"""Slots of shared memory: what they hold, how a row is written there, and how a batch is taken out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.errors import ConfigError
from hsw.spaces import SpaceSpec

SHARED_MEMORY = "/dev/shm"


def fields(
    observation_space: SpaceSpec, action_space: SpaceSpec, leading: tuple[int, int], extras: Sequence[str]
) -> dict[str, Any]:
    """The blocks by name, [num_storages, T + 1, ...], as meta tensors that take no memory.

    Args:
        observation_space, action_space: Of one environment.
        leading: num_storages and T + 1.
        extras: Names of what the policy contributes, a number each.
    """
    meta = torch.device("meta")
    blocks: dict[str, Any] = {
        "obs": observation_space.empty(*leading, device=meta),
        "actions": action_space.empty(*leading, device=meta),
        "last_actions": action_space.empty(*leading, device=meta),
    }
    for name in ("rewards", "last_rewards", "episode_returns", *extras):
        blocks[name] = torch.empty(leading, device=meta)
    for name in ("terminateds", "truncateds", "valid", "starts"):
        blocks[name] = torch.empty(leading, dtype=torch.bool, device=meta)
    for name in ("episode_lengths", "versions"):  # 0 where no episode ended; which weights acted
        blocks[name] = torch.empty(leading, dtype=torch.int64, device=meta)
    return blocks


def check_memory(size: int, num_storages: int) -> None:
    """Refuse blocks of so many bytes in all that do not fit into shared memory.

    Raises:
        ConfigError: With the number of slots that do.
    """
    try:
        stat = os.statvfs(SHARED_MEMORY)
    except OSError:  # not Linux
        return
    free = stat.f_bavail * stat.f_frsize
    if size > free:
        per_slot = size / num_storages
        raise ConfigError(
            f"storage.num_storages={num_storages} needs {size / 2**20:.0f} MiB of shared memory, and "
            f"{free / 2**20:.0f} MiB are free in {SHARED_MEMORY}; at most {int(free / per_slot)} slots fit"
        )


def write_row(view: np.ndarray, slot: Any, t: int, new: Any) -> None:
    """Set row t of a slot, or of K slots, in NumPy's view of a block."""
    if isinstance(new, Tensor):
        new = new.detach().cpu().numpy()
    view[slot, t] = np.reshape(new, (*np.shape(slot), *view.shape[2:]))


def time_major(block: Any, slots: Sequence[int], numbers: Tensor) -> Tensor:
    """A copy of these slots, [T + 1, B, ...]."""
    if isinstance(block, Tensor) and block[0, 0].numel() < 1024:
        # Small rows: two passes over them cost less than a slice and a piece of a stack for each slot.
        return block.detach().index_select(0, numbers).transpose(0, 1).contiguous()
    return torch.stack([block[slot].detach() for slot in slots], 1)


class Numbers:
    """A queue of slots' numbers that are given out once; what comes back is forgotten."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = iter(numbers)

    def get(self) -> int:
        return next(self.numbers)

    def put(self, number: int) -> None:
        return
