"""Decoupled advantage actor-critic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch.optim import Optimizer

from hsw.algorithm.base import Algorithm
from hsw.algorithm.losses import approximate_kl, clipped_surrogate, value_loss
from hsw.algorithm.metrics import Record, policy_std
from hsw.bounds import Range
from hsw.moments import std_mean
from hsw.network import DecoupledActorCritic
from hsw.schedule import Schedule
from hsw.storage import DecoupledRolloutStorage


class DAAC(Algorithm):
    """DAAC (Raileanu & Fergus 2021, arXiv:2102.10330) as its authors ran it.

    The policy network learns from PPO's clipped surrogate and from predicting the advantage; the value network learns
    by itself, in a phase of its own, longer and possibly rarer.

    Args:
        policy: A DecoupledActorCritic.
        lr: Step size of both Adams.
        lr_schedule: Of lr; "linear" takes it to 0 over the run's steps.
        num_epochs: Passes of the policy phase.
        value_epochs: Passes of the value phase.
        value_freq: One update in value_freq has a value phase.
        num_mini_batch: Minibatches per pass, in both phases.
        clip_range: Of the policy's probability ratio.
        adv_loss_coef: Weight of the advantage prediction.
        entropy_coef: Weight of the entropy.
        max_grad_norm: Each network's gradient norm is clipped to it.
        eps: Adam's.
        value_clip_range: Of the value's change; "clip_range" is that one, as the authors have it, and None leaves it
            free.
        value_phase_first: The value phase is that of updates 0, f, 2f, ..., as the authors have it; False waits for
            updates f - 1, 2f - 1, ..., and acts for f - 1 rollouts on values that were never trained.
        entropy_schedule: Of entropy_coef.
    """

    policy_type = DecoupledActorCritic
    storage_type = DecoupledRolloutStorage

    def __init__(
        self,
        policy: DecoupledActorCritic,
        lr: Annotated[float, Range(0)] = 5e-4,
        lr_schedule: Schedule = "constant",
        num_epochs: Annotated[int, Range(1)] = 1,
        value_epochs: Annotated[int, Range(1)] = 9,
        value_freq: Annotated[int, Range(1)] = 1,
        num_mini_batch: Annotated[int, Range(1)] = 8,
        clip_range: Annotated[float, Range(0, open_low=True)] = 0.2,
        adv_loss_coef: Annotated[float, Range(0)] = 0.25,
        entropy_coef: Annotated[float, Range(0)] = 0.01,
        max_grad_norm: Annotated[float, Range(0, open_low=True)] = 0.5,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-5,
        value_clip_range: Annotated[float | Literal["clip_range"] | None, Range(0, open_low=True)] = "clip_range",
        value_phase_first: bool = False,
        entropy_schedule: Schedule = "constant",
    ) -> None:
        super().__init__(policy)
        self.lr, self.lr_schedule = lr, lr_schedule
        self.num_epochs, self.value_epochs, self.value_freq = num_epochs, value_epochs, value_freq
        self.num_mini_batch, self.clip_range = num_mini_batch, clip_range
        self.adv_loss_coef, self.entropy_coef = adv_loss_coef, entropy_coef
        self.max_grad_norm, self.eps = max_grad_norm, eps
        self.value_clip_range, self.value_phase_first = value_clip_range, value_phase_first
        self.entropy_schedule = entropy_schedule
        self.parameters = {"policy": policy.policy_parameters(), "value": policy.value_parameters()}

    def expected_optimizers(self) -> set[str]:
        return {"policy", "value"} if self.num_updates >= self.value_freq else {"policy"}

    def make_optimizer(self, name: str) -> Optimizer:
        return self.optimizer(name, self.parameters[name], self.scheduled(self.lr, self.lr_schedule), self.eps)

    def update(self, storage: Any) -> dict[str, float]:
        begun = self.num_updates
        self.num_updates += 1
        info = self._policy_phase(storage)
        if (begun if self.value_phase_first else self.num_updates) % self.value_freq == 0:
            info.update(self._value_phase(storage))
        return info

    def _policy_phase(self, storage: Any) -> dict[str, float]:
        optimizer = self.make_optimizer("policy")
        entropy_coef = self.scheduled(self.entropy_coef, self.entropy_schedule)
        # Normalised once over the whole rollout; the advantage head predicts the normalised advantage.
        std, mean, _ = std_mean(storage.advantages[storage.valid])
        figures: list[torch.Tensor] = []
        norms, record = 0.0, Record(self.num_mini_batch)
        for batch in storage.generate_batches(self.num_mini_batch, None, self.num_epochs):
            advantages = (batch.advantages - mean) / (std + 1e-8)
            log_probs, entropies, adv_preds = self.policy.evaluate(batch.obs, batch.actions)
            policy_loss = clipped_surrogate(log_probs, batch.log_probs, advantages, self.clip_range)
            adv_loss = (adv_preds - advantages).square().mean()
            entropy = entropies.mean()
            loss = policy_loss + self.adv_loss_coef * adv_loss - entropy_coef * entropy
            norms += self.descend(optimizer, loss, self.max_grad_norm, batch)
            figures += [policy_loss.detach(), adv_loss.detach(), entropy.detach()]
            record.add(log_probs, batch)
        policy_loss_mean, adv_loss_mean, entropy_mean = torch.stack(figures).view(-1, 3).mean(0).tolist()
        return {
            "policy_loss": policy_loss_mean,
            "adv_loss": adv_loss_mean,
            "entropy": entropy_mean,
            "approx_kl": float(approximate_kl(log_probs, batch.log_probs)),  # of the last minibatch
            "grad_norm": norms / len(record),
            "lr": optimizer.param_groups[0]["lr"],
            "loss": policy_loss_mean + self.adv_loss_coef * adv_loss_mean - entropy_coef * entropy_mean,
            **record.metrics(self.clip_range),
            **policy_std(self.policy),
        }

    def _value_phase(self, storage: Any) -> dict[str, float]:
        optimizer = self.make_optimizer("value")
        clip_range = self.clip_range if self.value_clip_range == "clip_range" else self.value_clip_range
        losses: list[torch.Tensor] = []
        norms = 0.0
        for batch in storage.generate_batches(self.num_mini_batch, None, self.value_epochs):
            loss = 0.5 * value_loss(self.policy.value(batch.obs), batch.values, batch.returns, clip_range)
            norms += self.descend(optimizer, loss, self.max_grad_norm, batch)
            losses.append(loss.detach())
        return {"value_loss": float(sum(losses) / len(losses)), "value_grad_norm": norms / len(losses)}
