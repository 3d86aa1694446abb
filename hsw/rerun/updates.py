"""What an update learnt from, and by which gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hsw.agent import Agent


def named_parts(agent: Agent) -> Iterator[tuple[str, nn.Module]]:
    """All modules that an agent trains, by the names that their weights have in checkpoints."""
    for name, module in parts_of(agent).items():
        yield from ((f"{name}.{inner}" if inner else name, part) for inner, part in module.named_modules())


def parts_of(agent: Agent) -> dict[str, nn.Module]:
    """The policy, and what modules the algorithm and an intrinsic reward own beside it."""
    parts: dict[str, Any] = {"policy": agent.policy}
    for owner, holder in (("algorithm", agent.algorithm), ("intrinsic_reward", agent.intrinsic_reward)):
        if isinstance(holder, nn.Module):
            parts[owner] = holder
        elif holder is not None:
            owned = {key: value for key, value in vars(holder).items() if isinstance(value, nn.Module)}
            parts |= {f"{owner}.{key}": value for key, value in owned.items() if value is not agent.policy}
    return parts


def named_parameters(agent: Agent) -> dict[str, nn.Parameter]:
    """All parameters that an agent trains, by name."""
    parts = parts_of(agent).items()
    found = {f"{name}.{inner}": parameter for name, part in parts for inner, parameter in part.named_parameters()}
    own = {f"algorithm.{key}": value for key, value in vars(agent.algorithm).items() if isinstance(value, nn.Parameter)}
    return {**found, **own}


def tensors_of(batch: Any, name: str = "batch") -> dict[str, Tensor]:
    """The tensors of a batch, by name, nested ones with slashes between."""
    if isinstance(batch, Tensor):
        return {name: batch.detach().cpu().contiguous().clone()}
    if is_dataclass(batch) and not isinstance(batch, type):
        batch = {field.name: getattr(batch, field.name) for field in fields(batch)}
    if not isinstance(batch, dict):
        return {}
    return {key: part for inner, value in batch.items() for key, part in tensors_of(value, f"{name}/{inner}").items()}


class UpdateRecord:
    """Within this context, an agent's next update is kept: one of its minibatches, its gradients, and their norms.

    Args:
        agent: Before the update.
        minibatch: Which one, from 0.

    Attributes:
        batch: The minibatch's tensors, by name.
        gradients: Of every parameter that the minibatch moved, as the backward pass left them, before clipping.
        steps: Of every step of an optimiser: its minibatch, the norm of its gradient, and of how many parameters.
        finished: The update is over.
    """

    def __init__(self, agent: Agent, minibatch: int = 0) -> None:
        self._agent, self._minibatch = agent, minibatch
        self._names = {id(parameter): name for name, parameter in named_parameters(agent).items()}
        self._fired: dict[str, Tensor] = {}
        self._number = -1  # of the minibatch
        self._stack = ExitStack()
        self.batch: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.steps: list[dict[str, Any]] = []
        self.finished = False

    def __enter__(self) -> UpdateRecord:
        agent, stack = self._agent, self._stack
        self._instead(agent.storage, "on_batch", self._taken(agent.storage.on_batch))
        self._instead(agent.algorithm, "update", self._updated(agent.algorithm.update))
        for parameter in named_parameters(agent).values():
            if parameter.requires_grad:
                stack.callback(cast(Any, parameter).register_post_accumulate_grad_hook(self._accumulated).remove)
        stack.callback(register_optimizer_step_pre_hook(self._stepped).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _instead(self, owner: Any, name: str, function: Any) -> None:
        before = vars(owner).get(name)
        setattr(owner, name, function)
        self._stack.callback(lambda: setattr(owner, name, before) if before is not None else delattr(owner, name))

    def _taken(self, on_batch: Any) -> Any:
        def taken(batch: Any) -> Any:
            given = on_batch(batch)  # a stop that is asked for comes there
            if not self.finished:
                self._number += 1
                self._fired.clear()
                if self._number == self._minibatch:
                    self.batch = tensors_of(given)
            return given

        return taken

    def _updated(self, update: Any) -> Any:
        def updated(*arguments: Any, **options: Any) -> Any:
            figures = update(*arguments, **options)
            self.finished = True
            return figures

        return updated

    def _accumulated(self, parameter: Tensor) -> None:
        if not self.finished and parameter.grad is not None:
            self._fired[self._names[id(parameter)]] = parameter.grad.detach().clone()

    def _stepped(self, optimizer: Any, arguments: Any, options: Any) -> None:
        if self.finished:
            return
        moved = dict(self._fired)
        self._fired.clear()
        if not moved:  # a gradient that was not made by a backward pass
            owned = {parameter.data_ptr() for group in optimizer.param_groups for parameter in group["params"]}
            for name, parameter in named_parameters(self._agent).items():
                if parameter.data_ptr() in owned and parameter.grad is not None:
                    moved[name] = parameter.grad.detach().clone()
        norm = float(torch.stack([gradient.norm() for gradient in moved.values()]).norm()) if moved else 0.0
        self.steps.append({"minibatch": self._number, "parameters": len(moved), "gradient_norm": norm})
        if self._number == self._minibatch:
            self.gradients |= {name: gradient.cpu().contiguous() for name, gradient in moved.items()}
