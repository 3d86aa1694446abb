"""Batches have named fields, never positional ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class RolloutBatch:
    """A minibatch of B valid rows; log_probs and values are those of the acting policy."""

    obs: Any
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class ReplayBatch:
    """B transitions; next_obs is where each (n-step) transition led, and its value counts as discounts * V."""

    obs: Any
    actions: Tensor
    rewards: Tensor
    next_obs: Any
    terminateds: Tensor
    truncateds: Tensor
    discounts: Tensor


class DistributedBatch(dict[str, Any]):
    """Fields by name, batch.obs or batch["obs"], [T + 1, B, ...]; init_actor_states is a tuple of [1, B, H]."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no field {name}; it has {', '.join(self)}") from None
