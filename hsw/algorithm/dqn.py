"""Deep Q-learning, with the parts that Rainbow put together as switches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from hsw.algorithm.base import Algorithm
from hsw.algorithm.losses import q_loss
from hsw.algorithm.priorities import report_errors, weighted
from hsw.algorithm.targets import Follower
from hsw.bounds import Range
from hsw.network import QNetwork
from hsw.schedule import Schedule
from hsw.storage import ReplayStorage


class DQN(Algorithm):
    """DQN (Mnih et al. 2015, doi:10.1038/nature14236).

    Dueling is the network's (network.dueling), n-step returns and priorities are the storage's.

    Args:
        policy: A QNetwork.
        lr: Adam's step size.
        lr_schedule: Of lr; "linear" takes it to 0 over the run's steps.
        double: The target's action is chosen by the trained network (van Hasselt et al. 2016, arXiv:1509.06461).
        target_interval: Updates between those of the target network.
        tau: Part of the way that the target network goes then; 1 copies.
        epsilon_start, epsilon_end: Probability of a random action, at the beginning and from epsilon_fraction on.
        epsilon_fraction: Of the run's steps, in which it falls along a straight line.
        loss: Of the errors: "huber" is half their square up to 1 and straight beyond, "mse" half their square.
        max_grad_norm: The gradient's norm is clipped to it.
        eps: Adam's.
    """

    policy_type = QNetwork
    storage_type = ReplayStorage

    def __init__(
        self,
        policy: QNetwork,
        lr: Annotated[float, Range(0)] = 1e-4,
        lr_schedule: Schedule = "constant",
        double: bool = True,
        target_interval: Annotated[int, Range(1)] = 1000,
        tau: Annotated[float, Range(0, 1, open_low=True)] = 1.0,
        epsilon_start: Annotated[float, Range(0, 1)] = 1.0,
        epsilon_end: Annotated[float, Range(0, 1)] = 0.05,
        epsilon_fraction: Annotated[float, Range(0, 1)] = 0.1,
        loss: Literal["huber", "mse"] = "huber",
        max_grad_norm: Annotated[float, Range(0, open_low=True)] = 10.0,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-8,
    ) -> None:
        super().__init__(policy)
        self.lr, self.lr_schedule, self.double = lr, lr_schedule, double
        self.target_interval, self.tau = target_interval, tau
        self.epsilon_start, self.epsilon_end, self.epsilon_fraction = epsilon_start, epsilon_end, epsilon_fraction
        self.loss, self.max_grad_norm, self.eps = loss, max_grad_norm, eps
        self.parameters: list[nn.Parameter] = list(policy.online.parameters())
        self._follower = Follower(policy.target)

    def expected_optimizers(self) -> set[str]:
        return {"values"}

    def make_optimizer(self, name: str = "values") -> Optimizer:
        lr = self.scheduled(self.lr, self.lr_schedule)
        return self.optimizer(name, {"values": self.parameters}[name], lr, self.eps)

    def update(self, storage: Any) -> dict[str, float]:
        """One step on one batch; every target_interval-th time the target network follows."""
        self.num_updates += 1
        batch, policy = next(storage.generate_batches(1)), self.policy
        epsilon = self.epsilon()
        policy.epsilon.fill_(epsilon)
        actions = batch.actions.reshape(-1, 1)

        with torch.no_grad():
            following = policy.target_values(batch.next_obs)
            best = (policy.values(batch.next_obs) if self.double else following).argmax(-1, keepdim=True)
            next_values = following.gather(-1, best).squeeze(-1)
            # Only a termination ends the return; after a truncation next_obs is valued like any other.
            targets = batch.rewards + batch.discounts * batch.terminateds.logical_not() * next_values
        values = policy.values(batch.obs).gather(-1, actions).squeeze(-1)
        errors = (values - targets).detach()
        loss = weighted(q_loss(values, targets, self.loss), batch).mean()
        report_errors(storage, batch, errors.abs())
        optimizer = self.make_optimizer()
        norm = self.descend(optimizer, loss, self.max_grad_norm, batch)
        if self.num_updates % self.target_interval == 0:
            self._follower.follow(optimizer.param_groups[0]["params"][0], self.tau)
        mean_loss, mean_value, mean_error = torch.stack([loss.detach(), values.detach().mean(), errors.mean()]).tolist()
        return {
            "loss": mean_loss,
            "value": mean_value,
            "td_error": mean_error,
            "grad_norm": norm,
            "epsilon": epsilon,
            "lr": optimizer.param_groups[0]["lr"],
        }

    @staticmethod
    def follows_budget(options: Mapping[str, Any]) -> list[str]:
        """Which of its options make it do otherwise at the same step of a longer run."""
        falls = options.get("epsilon_fraction", 0.1) and options.get("epsilon_start") != options.get("epsilon_end")
        return ["epsilon_fraction"] if falls else []

    def epsilon(self) -> float:
        """The probability of a random action at this point of the run."""
        part = min(self.progress / self.epsilon_fraction, 1.0) if self.epsilon_fraction else 1.0
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * part
