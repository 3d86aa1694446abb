"""Twin delayed deep deterministic policy gradient."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import nn
from torch.optim import Optimizer

from hsw.algorithm.base import Algorithm
from hsw.algorithm.priorities import report_errors, weighted
from hsw.algorithm.targets import Follower
from hsw.bounds import Range
from hsw.network import DeterministicActorCritic
from hsw.schedule import Schedule
from hsw.storage import ReplayStorage


class TD3(Algorithm):
    """TD3 (Fujimoto et al. 2018, arXiv:1802.09477).

    Args:
        policy: A DeterministicActorCritic.
        lr: Step size of both Adams.
        lr_schedule: Of lr; "linear" takes it to 0 over the run's steps.
        tau: Part of the way that the targets go towards the networks, whenever the actor is updated.
        policy_delay: Updates of the critics for each of the actor.
        target_noise, target_noise_clip: Standard deviation and limits of what is added to the target actor's actions,
            which are in [-1, 1].
        eps: Adam's.
    """

    policy_type = DeterministicActorCritic
    storage_type = ReplayStorage

    def __init__(
        self,
        policy: DeterministicActorCritic,
        lr: Annotated[float, Range(0)] = 3e-4,
        lr_schedule: Schedule = "constant",
        tau: Annotated[float, Range(0, 1, open_low=True)] = 0.005,
        policy_delay: Annotated[int, Range(1)] = 2,
        target_noise: Annotated[float, Range(0)] = 0.2,
        target_noise_clip: Annotated[float, Range(0)] = 0.5,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-8,
    ) -> None:
        super().__init__(policy)
        self.lr, self.lr_schedule, self.tau, self.eps = lr, lr_schedule, tau, eps
        self.policy_delay, self.target_noise, self.target_noise_clip = policy_delay, target_noise, target_noise_clip
        self.parameters: dict[str, list[nn.Parameter]] = {
            "critics": list(policy.critics.parameters()),
            "actor": list(policy.actor.parameters()),
        }
        self._followers = {"critics": Follower(policy.target_critics), "actor": Follower(policy.target_actor)}

    def expected_optimizers(self) -> set[str]:
        return {"critics", *(["actor"] if self.num_updates >= self.policy_delay else [])}

    def make_optimizer(self, name: str) -> Optimizer:
        return self.optimizer(name, self.parameters[name], self.scheduled(self.lr, self.lr_schedule), self.eps)

    def update(self, storage: Any) -> dict[str, float]:
        """One step of the critics on one batch; every policy_delay-th time also of the actor and the targets."""
        self.num_updates += 1
        batch, policy = next(storage.generate_batches(1)), self.policy
        x, next_x = policy.encode(batch.obs), policy.encode(batch.next_obs)

        with torch.no_grad():
            next_actions = policy.target_actions(next_x)
            noise = torch.randn_like(next_actions) * self.target_noise
            noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
            next_values = policy.target_values(next_x, (next_actions + noise).clamp(-1, 1)).amin(0)
            # Only a termination ends the return; after a truncation next_obs is valued like any other.
            targets = batch.rewards + batch.discounts * batch.terminateds.logical_not() * next_values
        values = policy.values(x, policy.to_unit(batch.actions))
        errors = values - targets
        critic_loss = weighted(errors.square().sum(0), batch).mean()
        report_errors(storage, batch, errors.detach().abs().mean(0))
        critics = self.make_optimizer("critics")
        norm = self.descend(critics, critic_loss, math.inf, batch)
        mean_loss, mean_value = torch.stack([critic_loss.detach(), values.detach().mean()]).tolist()
        figures = {
            "critic_loss": mean_loss,
            "value": mean_value,
            "critic_grad_norm": norm,
            "lr": critics.param_groups[0]["lr"],
        }
        if self.num_updates % self.policy_delay:
            return figures

        actor_loss = -policy.values(x, policy.actions(x))[0].mean()
        actor = self.make_optimizer("actor")
        norm = self.descend(actor, actor_loss, math.inf, batch, inputs=self.parameters["actor"])
        for name, optimizer in (("critics", critics), ("actor", actor)):
            self._followers[name].follow(optimizer.param_groups[0]["params"][0], self.tau)
        return {**figures, "actor_loss": actor_loss.item(), "actor_grad_norm": norm}
