"""What algorithms share that train a whole policy with one optimiser."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from hsw.algorithm.base import Algorithm
from hsw.network import Policy
from hsw.schedule import Schedule


class SingleOptimizer(Algorithm):
    """An algorithm with one optimiser of all of the policy's parameters, called "all".

    Args:
        policy: The networks it trains.
        lr: Step size.
        lr_schedule: Of lr, over the run's steps.
        eps: The optimiser's.
        kind: Adam, or RMSprop without momentum.
        decay: Of RMSprop's running mean of squares.
    """

    def __init__(
        self,
        policy: Policy,
        lr: float,
        lr_schedule: Schedule,
        eps: float,
        kind: Literal["rmsprop", "adam"] = "adam",
        decay: float = 0.99,
    ) -> None:
        super().__init__(policy)
        self.lr, self.lr_schedule, self.eps = lr, lr_schedule, eps
        self.kind, self.decay = kind, decay
        self.parameters = list(policy.parameters())

    def expected_optimizers(self) -> set[str]:
        return {"all"}

    def make_optimizer(self, name: str = "all") -> Optimizer:
        return self.optimizer(name, {"all": self.parameters}[name], self.scheduled(self.lr, self.lr_schedule), self.eps)

    def new_optimizer(self, parameter: nn.Parameter, lr: float, eps: float) -> Optimizer:
        if self.kind == "adam":
            return super().new_optimizer(parameter, lr, eps)
        return torch.optim.RMSprop([parameter], lr=lr, alpha=self.decay, eps=eps)
