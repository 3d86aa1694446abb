"""What the loops need of an algorithm."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hsw.algorithm.flat import adam, flattened, is_view, optimizer_template, restore_state, state_of, take_step
from hsw.errors import ConfigError, NonFiniteError
from hsw.network import Policy
from hsw.ranks import current
from hsw.schedule import Schedule, factor
from hsw.template import Anything, Named, StateError, Whole, hold, template_of


class Algorithm(ABC):
    """A loss with its optimisers and hyper-parameters. It never sees the environment.

    What it owns beside the policy (tensors, parameters, modules among its attributes) goes where the policy goes: an
    agent moves both.

    Args:
        policy: The networks it trains.
    """

    # What a config must bring together; a recipe does.
    policy_type: ClassVar[type]
    storage_type: ClassVar[type]

    def __init__(self, policy: Policy) -> None:
        self.policy: Any = policy
        self.num_updates = 0
        self.progress = 0.0
        self._optimizers: dict[str, Optimizer] = {}
        self._parameters: dict[str, list[nn.Parameter]] = {}  # of each optimiser

    @abstractmethod
    def update(self, storage: Any) -> dict[str, float]:
        """Learn from what the storage holds. Returns figures to log."""

    def scheduled(self, value: float, schedule: Schedule) -> float:
        """A hyper-parameter at this point of the run."""
        return value * factor(schedule, self.progress)

    def optimizer(self, name: str, parameters: list[nn.Parameter], lr: float, eps: float = 1e-5) -> Optimizer:
        """The named optimiser, made when first needed: what some import takes a second that acting need not wait for.

        From then on the parameters are views of one tensor: zeroing, clipping and a step are an operation each, where a
        small network would spend as much on one per layer as on its gradient.

        Raises:
            ConfigError: If another optimiser has one of the parameters: views of two tensors they cannot be.
        """
        if name not in self._optimizers:
            self._claim(name, parameters)
            self._optimizers[name] = self.new_optimizer(flattened(parameters), lr, eps)
        optimizer = self._optimizers[name]
        if not is_view(parameters[0], flat := optimizer.param_groups[0]["params"][0]):
            flat.data = (whole := flattened(parameters)).data  # they were moved or copied since
            flat.grad = whole.grad
            optimizer.load_state_dict(optimizer.state_dict())  # which follows its parameter
        optimizer.param_groups[0]["lr"] = lr
        return optimizer

    def _claim(self, name: str, parameters: list[nn.Parameter]) -> None:
        owners = {id(parameter): other for other, group in self._parameters.items() for parameter in group}
        if other := next((owners[id(parameter)] for parameter in parameters if id(parameter) in owners), None):
            raise ConfigError(
                f"{type(self).__name__}'s optimisers {other!r} and {name!r} share a parameter, which one of them would "
                "silently not train; give each parameter to one optimiser"
            )
        self._parameters[name] = list(parameters)

    def new_optimizer(self, parameter: nn.Parameter, lr: float, eps: float) -> Optimizer:
        """The optimiser of a flat parameter: Adam, unless an algorithm wants another."""
        return adam(parameter, lr, eps)

    def descend(
        self,
        optimizer: Optimizer,
        loss: Tensor,
        max_grad_norm: float,
        batch: Any,
        inputs: list[nn.Parameter] | None = None,
        rows: Tensor | int | None = None,
        summed: bool = False,
    ) -> float:
        """One step down the loss's gradient over all ranks' batches together, its norm clipped.

        Args:
            optimizer: Of the parameters.
            loss: A scalar.
            max_grad_norm: math.inf does not clip.
            batch: What the loss was computed from, a dataclass, for the error.
            inputs: The optimiser's parameters where the loss depends on others too, whose gradients are not needed.
            rows: Of how many rows the loss is the mean, which weighs it among the ranks'; None counts the batch's.
            summed: The loss is a sum over its rows, and the ranks' losses are added.

        Returns:
            The gradient's norm before clipping.

        Raises:
            NonFiniteError: If the loss or the gradient is not finite, on whichever rank; the parameters are left as
                they were.
        """
        gradient = optimizer.param_groups[0]["params"][0].grad
        gradient.zero_()
        torch.autograd.backward(loss, inputs=inputs)
        ranks, own = current(), gradient
        if ranks.size > 1:
            own = gradient.clone()
            if summed:
                ranks.sum_(gradient)
            else:
                gradient.copy_(ranks.weighted_mean(own, _num_rows(batch) if rows is None else rows))
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            raise self._not_finite(loss, own, batch)
        if norm > max_grad_norm:
            gradient.mul_(max_grad_norm / (norm + 1e-6))
        take_step(optimizer)
        return norm

    def _not_finite(self, loss: Tensor, gradient: Tensor, batch: Any) -> NonFiniteError:
        """What every rank raises, naming those whose numbers are not finite."""
        norm, ranks = float(gradient.norm()), current()
        losses = ranks.where(not math.isfinite(loss.detach()))
        guilty = ranks.where(not math.isfinite(norm)) if ranks.size > 1 else []
        where = f"({norm})" if ranks.size == 1 else f"on rank {', '.join(map(str, guilty))}"
        what = f"the {'loss' if losses else 'gradient'} of {type(self).__name__}'s update {self.num_updates}"
        if ranks.size > 1 and not guilty:
            where = "once all ranks' are added"
        fields = batch if isinstance(batch, dict) else asdict(batch)
        return NonFiniteError(f"{what} is not finite {where}", None if guilty and ranks.rank not in guilty else fields)

    def state_dict(self) -> dict[str, Any]:
        optimizers = {name: state_of(optimizer) for name, optimizer in self._optimizers.items()}
        return {"optimizers": optimizers, "num_updates": self.num_updates}

    def state_template(self) -> Any:
        """What a saved state must look like; each optimiser's is told by itself, when it is made."""
        return {**template_of(self.state_dict()), "optimizers": Named(Anything()), "num_updates": Whole()}

    def expected_optimizers(self) -> set[str]:
        """The optimisers that must have a state after the first update."""
        return set()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned.

        Raises:
            StateError: If it is of other optimisers or parameters.
        """
        self.num_updates = state["num_updates"]
        self._optimizers.clear()
        self._parameters.clear()
        lacking = self.expected_optimizers() - set(state["optimizers"]) if self.num_updates else set()
        if lacking:
            raise StateError(f"the saved algorithm has no optimizer {min(lacking)}")
        for name, saved in state["optimizers"].items():
            try:
                optimizer = self.make_optimizer(name)
            except KeyError:
                raise StateError(f"the saved algorithm has an optimizer {name}, which nothing takes up") from None
            hold(optimizer_template(optimizer), saved, f"algorithm/optimizers/{name}")
            restore_state(optimizer, saved)

    @abstractmethod
    def make_optimizer(self, name: str) -> Optimizer:
        """The optimiser of that name, made if it does not exist yet."""


def _num_rows(batch: Any) -> int:
    """The length of a batch: that of its first tensor."""
    fields = batch.values() if isinstance(batch, dict) else vars(batch).values()
    return next(len(field) for field in fields if isinstance(field, Tensor))
