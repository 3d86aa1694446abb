"""The rollout of algorithms that decouple policy and value (DAAC): it also keeps the advantage predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hsw.storage.batches import RolloutBatch
from hsw.storage.rollout import RolloutStorage


@dataclass(frozen=True)
class DecoupledRolloutBatch(RolloutBatch):
    """A RolloutBatch with the advantages that the acting policy predicted; DAAC's loss does not read them."""

    adv_preds: Tensor


class DecoupledRolloutStorage(RolloutStorage):
    """A rollout for DAAC (Raileanu & Fergus 2021, arXiv:2102.10330). Arguments as in RolloutStorage."""

    Batch = DecoupledRolloutBatch

    def add(  # type: ignore[override]
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_obs: Any,
        log_probs: Any,
        values: Any,
        adv_preds: Any,
        *,
        valid: Any = None,
    ) -> None:
        """Store one step of every environment: RolloutStorage.add's arguments, and adv_preds, [N] or [N, 1]."""
        extras = {"log_probs": log_probs, "values": values, "adv_preds": adv_preds}
        self._insert(obs, actions, rewards, terminateds, truncateds, next_obs, valid, extras)
