"""Proximal policy optimisation of rewards of two kinds."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hsw.algorithm.losses import value_loss
from hsw.algorithm.ppo import PPO
from hsw.network import TwoValueActorCritic
from hsw.storage import TwoStreamRolloutStorage


class TwoStreamPPO(PPO):
    """PPO with a value for each stream of rewards (Burda et al. 2018, arXiv:1810.12894).

    The advantages are the storage's sum of both streams'. Where the intrinsic rewards come from is `intrinsic_reward`.

    Args: as in PPO; policy is a TwoValueActorCritic.
    """

    policy_type = TwoValueActorCritic
    storage_type = TwoStreamRolloutStorage

    def critic_loss(self, values: Tensor, batch: Any) -> Tensor:
        streams = (batch.values, batch.returns), (batch.intrinsic_values, batch.intrinsic_returns)
        own, intrinsic = (
            value_loss(now, *stream, self.value_clip_range)
            for now, stream in zip(values.unbind(-1), streams, strict=True)
        )
        return own + intrinsic
