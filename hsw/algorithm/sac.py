"""Soft actor-critic."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import nn
from torch.optim import Optimizer

from hsw.algorithm.base import Algorithm
from hsw.algorithm.flat import take_step
from hsw.algorithm.priorities import report_errors, weighted
from hsw.algorithm.targets import Follower
from hsw.bounds import Range
from hsw.network import SoftActorCritic
from hsw.ranks import current
from hsw.schedule import Schedule
from hsw.storage import ReplayStorage


class SAC(Algorithm):
    """SAC with twin critics and a learned temperature (Haarnoja et al. 2018, arXiv:1812.05905).

    Args:
        policy: A SoftActorCritic.
        lr: Step size of all three Adams.
        lr_schedule: Of lr; "linear" takes it to 0 over the run's steps.
        tau: Part of the way that the target critics go towards the critics at each update.
        alpha: Temperature, or where it begins.
        learn_alpha: Adapt it so that the policy's entropy is target_entropy.
        target_entropy: Of actions in [-1, 1]; None is minus their number of dimensions.
        eps: Adam's.
    """

    policy_type = SoftActorCritic
    storage_type = ReplayStorage

    def __init__(
        self,
        policy: SoftActorCritic,
        lr: Annotated[float, Range(0)] = 3e-4,
        lr_schedule: Schedule = "constant",
        tau: Annotated[float, Range(0, 1, open_low=True)] = 0.005,
        alpha: Annotated[float, Range(0, open_low=True)] = 1.0,
        learn_alpha: bool = True,
        target_entropy: float | None = None,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-8,
    ) -> None:
        super().__init__(policy)
        self.lr, self.lr_schedule, self.tau, self.eps = lr, lr_schedule, tau, eps
        self.learn_alpha = learn_alpha
        self.target_entropy = -float(policy.action_dim) if target_entropy is None else target_entropy
        self.log_alpha = nn.Parameter(torch.tensor([math.log(alpha)], device=policy.center.device))
        self.parameters = {
            "critics": list(policy.critics.parameters()),
            "actor": list(policy.actor.parameters()),
            "alpha": [self.log_alpha],
        }
        self._targets = Follower(policy.target_critics)

    def expected_optimizers(self) -> set[str]:
        return {"critics", "actor", *(["alpha"] if self.learn_alpha else [])}

    def make_optimizer(self, name: str) -> Optimizer:
        return self.optimizer(name, self.parameters[name], self.scheduled(self.lr, self.lr_schedule), self.eps)

    def update(self, storage: Any) -> dict[str, float]:
        """One step of the critics, the actor, the temperature and the targets, on one batch."""
        self.num_updates += 1
        batch, policy = next(storage.generate_batches(1)), self.policy
        x, next_x = policy.encode(batch.obs), policy.encode(batch.next_obs)
        alpha = self.log_alpha.detach().exp()

        with torch.no_grad():
            next_actions, next_log_probs = policy.sample(next_x)
            next_values = policy.target_values(next_x, next_actions).amin(0) - alpha * next_log_probs
            # Only a termination ends the return; after a truncation next_obs is valued like any other.
            targets = batch.rewards + batch.discounts * batch.terminateds.logical_not() * next_values
        values = policy.values(x, policy.to_unit(batch.actions))
        errors = values - targets
        critic_loss = 0.5 * weighted(errors.square().sum(0), batch).mean()
        report_errors(storage, batch, errors.detach().abs().mean(0))
        critics = self.make_optimizer("critics")
        critic_norm = self.descend(critics, critic_loss, math.inf, batch)

        actions, log_probs = policy.sample(x)
        actor_loss = (alpha * log_probs - policy.values(x, actions).amin(0)).mean()
        actor = self.make_optimizer("actor")
        actor_norm = self.descend(actor, actor_loss, math.inf, batch, inputs=self.parameters["actor"])
        entropy = -log_probs.detach().mean()
        slope = entropy - self.target_entropy  # of alpha_loss
        alpha_loss = self.log_alpha.detach()[0] * slope
        if self.learn_alpha:
            temperature = self.make_optimizer("alpha")
            assert self.log_alpha.grad is not None
            self.log_alpha.grad.copy_(current().mean_(slope))
            take_step(temperature)

        self._targets.follow(critics.param_groups[0]["params"][0], self.tau)
        names = ("critic_loss", "actor_loss", "entropy", "value", "alpha", "alpha_loss")
        figures = [critic_loss.detach(), actor_loss.detach(), entropy, values.detach().mean(), alpha[0], alpha_loss]
        return {
            **dict(zip(names, torch.stack(figures).tolist(), strict=True)),
            "critic_grad_norm": critic_norm,
            "actor_grad_norm": actor_norm,
            "lr": critics.param_groups[0]["lr"],
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "log_alpha": self.log_alpha.detach().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.log_alpha.data.copy_(state["log_alpha"])
