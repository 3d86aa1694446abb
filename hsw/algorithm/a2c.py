"""Advantage actor-critic: one gradient step a rollout."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch

from hsw.algorithm.losses import normalize, value_loss
from hsw.algorithm.metrics import explained_variance, policy_std
from hsw.algorithm.single_optimizer import SingleOptimizer
from hsw.bounds import Range
from hsw.network import ActorCritic
from hsw.schedule import Schedule
from hsw.storage import RolloutStorage


class A2C(SingleOptimizer):
    """A2C, the synchronous form of A3C (Mnih et al. 2016, arXiv:1602.01783), from short rollouts of many environments.

    Args:
        policy: An ActorCritic.
        lr: The optimiser's step size.
        lr_schedule: Of lr; "linear" takes it to 0 over the run's steps.
        value_coef, entropy_coef: Weights of the loss's terms. The value loss is the mean squared error.
        max_grad_norm: The gradient's norm is clipped to it.
        normalize_advantages: Over the rollout.
        optimizer: "rmsprop", as in the paper, or "adam".
        decay: Of rmsprop's running mean of squares.
        eps: The optimiser's.
        entropy_schedule: Of entropy_coef.
    """

    policy_type = ActorCritic
    storage_type = RolloutStorage

    def __init__(
        self,
        policy: ActorCritic,
        lr: Annotated[float, Range(0)] = 7e-4,
        lr_schedule: Schedule = "linear",
        value_coef: Annotated[float, Range(0)] = 0.5,
        entropy_coef: Annotated[float, Range(0)] = 0.01,
        max_grad_norm: Annotated[float, Range(0, open_low=True)] = 0.5,
        normalize_advantages: bool = False,
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        decay: Annotated[float, Range(0, 1)] = 0.99,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-5,
        entropy_schedule: Schedule = "constant",
    ) -> None:
        super().__init__(policy, lr, lr_schedule, eps, optimizer, decay)
        self.value_coef, self.entropy_coef, self.entropy_schedule = value_coef, entropy_coef, entropy_schedule
        self.max_grad_norm, self.normalize_advantages = max_grad_norm, normalize_advantages

    def update(self, storage: Any) -> dict[str, float]:
        optimizer = self.make_optimizer()
        entropy_coef = self.scheduled(self.entropy_coef, self.entropy_schedule)
        self.num_updates += 1
        batch = next(storage.generate_batches(1))
        log_probs, entropies, values = self.policy.evaluate(batch.obs, batch.actions)
        advantages = normalize(batch.advantages) if self.normalize_advantages else batch.advantages
        policy_loss = -(advantages * log_probs).mean()
        critic_loss = value_loss(values, batch.values, batch.returns, None)
        entropy = entropies.mean()
        loss = policy_loss + self.value_coef * critic_loss - entropy_coef * entropy
        norm = self.descend(optimizer, loss, self.max_grad_norm, batch)
        told = (policy_loss, critic_loss, entropy, loss, batch.values.mean())
        figures = [*(part.detach() for part in told), explained_variance(batch.values, batch.returns)]
        names = ("policy_loss", "value_loss", "entropy", "loss", "value", "explained_variance")
        return {
            **dict(zip(names, torch.stack(figures).tolist(), strict=True)),
            "grad_norm": norm,
            "lr": optimizer.param_groups[0]["lr"],
            **policy_std(self.policy),
        }
