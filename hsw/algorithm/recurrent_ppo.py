"""Proximal policy optimisation of a policy that remembers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hsw.algorithm.ppo import PPO
from hsw.network import MemoryActorCritic
from hsw.storage import SequenceRolloutStorage


class RecurrentPPO(PPO):
    """PPO on whole sequences (Schulman et al. 2017, arXiv:1707.06347; Huang et al. 2022, details of the LSTM).

    A minibatch is a num_mini_batch-th of the rollout's sequences, each run through anew from the state that the acting
    policy had before its first row. Nothing flows across a reset. The loss is PPO's, a mean over rows.

    Args: as in PPO; policy is a MemoryActorCritic.
    """

    policy_type = MemoryActorCritic
    storage_type = SequenceRolloutStorage

    def evaluate(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        told: tuple[Tensor, Tensor, Tensor] = self.policy.evaluate(batch.obs, batch.actions, batch.core, batch.lengths)
        return told
