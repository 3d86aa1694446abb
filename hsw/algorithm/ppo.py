"""Proximal policy optimisation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch

from hsw.algorithm.losses import approximate_kl, clipped_surrogate, normalize, value_loss
from hsw.algorithm.metrics import Record, policy_std
from hsw.algorithm.single_optimizer import SingleOptimizer
from hsw.bounds import Range
from hsw.network import ActorCritic
from hsw.ranks import current
from hsw.schedule import Schedule
from hsw.storage import RolloutStorage


class PPO(SingleOptimizer):
    """PPO (Schulman et al. 2017, arXiv:1707.06347) with the details that matter (Huang et al. 2022, "The 37
    implementation details of proximal policy optimization").

    Args:
        policy: An ActorCritic.
        lr: Adam's step size.
        lr_schedule, clip_schedule: Of lr and clip_range; "linear" takes the value to 0 over the run's steps.
        num_epochs: Passes over each rollout.
        num_mini_batch: Minibatches per pass.
        clip_range: Of the policy's probability ratio.
        value_clip_range: Of the value's change; None leaves it free.
        value_coef, entropy_coef: Weights of the loss's terms. The value loss is the mean squared error, as in
            Stable-Baselines3; OpenAI's baselines and CleanRL put 1/2 before it, and their 0.5 is 0.25 here.
        max_grad_norm: The gradient's norm is clipped to it.
        normalize_advantages: Per minibatch.
        target_kl: End the update when the policy has moved further than 1.5 times this; None never does.
        eps: Adam's.
        entropy_schedule: Of entropy_coef.
    """

    policy_type: ClassVar[type] = ActorCritic
    storage_type: ClassVar[type] = RolloutStorage

    def __init__(
        self,
        policy: ActorCritic,
        lr: Annotated[float, Range(0)] = 2.5e-4,
        lr_schedule: Schedule = "linear",
        num_epochs: Annotated[int, Range(1)] = 4,
        num_mini_batch: Annotated[int, Range(1)] = 4,
        clip_range: Annotated[float, Range(0, open_low=True)] = 0.2,
        clip_schedule: Schedule = "constant",
        value_clip_range: Annotated[float | None, Range(0, open_low=True)] = None,
        value_coef: Annotated[float, Range(0)] = 0.5,
        entropy_coef: Annotated[float, Range(0)] = 0.01,
        max_grad_norm: Annotated[float, Range(0, open_low=True)] = 0.5,
        normalize_advantages: bool = True,
        target_kl: Annotated[float | None, Range(0, open_low=True)] = None,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-5,
        entropy_schedule: Schedule = "constant",
    ) -> None:
        super().__init__(policy, lr, lr_schedule, eps)
        self.num_epochs, self.num_mini_batch = num_epochs, num_mini_batch
        self.clip_range, self.clip_schedule = clip_range, clip_schedule
        self.value_clip_range, self.value_coef, self.entropy_coef = value_clip_range, value_coef, entropy_coef
        self.max_grad_norm, self.normalize_advantages = max_grad_norm, normalize_advantages
        self.target_kl, self.entropy_schedule = target_kl, entropy_schedule

    def evaluate(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities, entropies and values of a batch's rows under the current weights, [B] each."""
        told: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self.policy.evaluate(batch.obs, batch.actions)
        return told

    def critic_loss(self, values: torch.Tensor, batch: Any) -> torch.Tensor:
        """What the values that evaluate gives are off."""
        return value_loss(values, batch.values, batch.returns, self.value_clip_range)

    def update(self, storage: Any) -> dict[str, float]:
        optimizer = self.make_optimizer()
        clip_range = self.scheduled(self.clip_range, self.clip_schedule)
        entropy_coef = self.scheduled(self.entropy_coef, self.entropy_schedule)
        figures: list[torch.Tensor] = []
        norms, record, kl = 0.0, Record(self.num_mini_batch), torch.zeros(())
        self.num_updates += 1
        for batch in storage.generate_batches(self.num_mini_batch, None, self.num_epochs):
            log_probs, entropies, values = self.evaluate(batch)
            advantages = normalize(batch.advantages) if self.normalize_advantages else batch.advantages
            policy_loss = clipped_surrogate(log_probs, batch.log_probs, advantages, clip_range)
            critic_loss = self.critic_loss(values, batch)
            entropy = entropies.mean()
            loss = policy_loss + self.value_coef * critic_loss - entropy_coef * entropy
            if self.target_kl is not None:
                kl = current().weighted_mean(approximate_kl(log_probs, batch.log_probs), len(log_probs))
                if float(kl) > 1.5 * self.target_kl:
                    break
            norms += self.descend(optimizer, loss, self.max_grad_norm, batch)
            figures += [policy_loss.detach(), critic_loss.detach(), entropy.detach()]
            record.add(log_probs, batch)
        if self.target_kl is None:
            kl = approximate_kl(log_probs, batch.log_probs)
        means = torch.stack(figures).view(-1, 3).mean(0).tolist() if figures else [0.0] * 3
        policy_loss_mean, value_loss_mean, entropy_mean = means
        return {
            "policy_loss": policy_loss_mean,
            "value_loss": value_loss_mean,
            "entropy": entropy_mean,
            "approx_kl": float(kl),  # of the last minibatch
            "grad_norm": norms / max(len(record), 1),
            "lr": optimizer.param_groups[0]["lr"],
            "clip_range": clip_range,
            "gradient_steps": len(record),
            "loss": policy_loss_mean + self.value_coef * value_loss_mean - entropy_coef * entropy_mean,
            **record.metrics(clip_range),
            **policy_std(self.policy),
        }
