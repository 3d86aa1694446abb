"""What a replay makes of a ring's records: transitions of one or of several steps; and what a saved ring keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hsw.storage.ring import Ring
from hsw.template import StateError


def n_step_records(
    ring: Ring, places: np.ndarray, n_step: int, discount: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Copies of the transitions at these places, with the rewards of n steps, fewer where an episode ends.

    Args:
        ring: Where they are.
        places: Of transitions, [B].
        n_step: Steps whose rewards are summed.
        discount: Per environment step.

    Returns:
        Records of their first steps, with the discounted sums for rewards; of where the last steps led; of their last
        steps; and by what the value of where they led counts; [B] each.
    """
    records, ends, discounts = None, places, np.full(len(places), discount, np.float32)
    if n_step > 1:
        records, going = ring.records(places), np.ones(len(places), bool)
        rewards = records["rewards"].astype(np.float64)
        for k in range(1, n_step):
            following = ring.moved(ends, 1)
            going &= ring.offsets.take(following) > 0  # another transition of the same episode
            ends = np.where(going, following, ends)
            rewards += going * discount**k * ring.memory["rewards"][ends]
            discounts[going] *= discount
        records["rewards"] = rewards
    pairs = ring.pairs(ends)
    last = pairs[:, 0]
    return last if records is None else records, pairs[:, 1], last, discounts


def info_of(saved: dict[str, Any]) -> dict[str, np.ndarray]:
    """An info of one environment with the numbers that a saved ring keeps, all 0.

    Raises:
        StateError: If its records cannot have the fields that it says.
    """
    fields = saved["layout"][2:]
    sizes = [np.dtype(dtype).itemsize * math.prod(shape) for _, dtype, shape, _ in fields]
    if sum(sizes) > saved["pending"].shape[1]:
        raise StateError("the saved storage/ring/layout is of more bytes than a row of it has")
    return {name[5:]: np.zeros(shape, dtype)[None] for name, dtype, shape, _ in fields if name[:5] == "info/"}
