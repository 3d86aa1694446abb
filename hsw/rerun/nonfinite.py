"""Where the first number that is not finite came from: the layer that made it, forward or backward."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from hsw.agent import Agent
from hsw.errors import ConfigError, CorruptError, NonFiniteError
from hsw.network.forward import Forward
from hsw.rerun.again import again, run_until
from hsw.rerun.compare import differences
from hsw.rerun.history import read_history
from hsw.rerun.updates import named_parameters, named_parts, tensors_of
from hsw.run.checkpoint import read_state
from hsw.run.status import stored_status

_BATCH = re.compile(r"nonfinite-([0-9]{1,18})", re.ASCII)
_MARK = "hsw.layer"


class Tracer:
    """Within this context, the first layer is found whose numbers are not finite though those it was given are.

    Layers are torch modules that are called: what each returns is looked at, and in the backward pass the gradients
    that each operation within it passes on. What is found is of the last minibatch, or of acting after it.

    Args:
        agent: Before it goes on.

    Attributes:
        forward, backward: What is to be said of the first such layer in each pass.
        step_of_optimizer: The parameters that a step of an optimiser left not finite, the first time that happened.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._names = {id(module): name for name, module in named_parts(agent)}
        self._stack = ExitStack()
        self._batch = 0  # of this update
        self.forward: dict[str, Any] | None = None
        self.backward: dict[str, Any] | None = None
        self.step_of_optimizer: dict[str, Any] | None = None

    def __enter__(self) -> Tracer:
        storage, given = self._agent.storage, self._agent.storage.on_batch

        def taken(batch: Any) -> Any:
            batch = given(batch)
            self.forward = self.backward = None
            self._batch += 1
            bad = [name for name, part in tensors_of(batch, "").items() if not _finite(part)]
            if bad:
                self.forward = {"layer": None, "what": f"the minibatch itself: {', '.join(n[1:] for n in bad)}"}
            return batch

        for module in self._agent.policy.modules():
            if isinstance(own := vars(module).get("forward"), Forward):
                own.compiled = None  # whoever compiles layers together calls none of them
        storage.on_batch = taken
        self._stack.callback(setattr, storage, "on_batch", given)
        self._stack.callback(register_module_forward_hook(self._called).remove)
        self._stack.callback(register_optimizer_step_post_hook(self._stepped).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _called(self, module: nn.Module, given: Any, returned: Any) -> None:
        name = self._names.get(id(module))
        if name is None:
            return
        outputs = _tensors(returned)
        if self.forward is None and not all(map(_finite, outputs)) and all(map(_finite, _tensors(given))):
            self.forward = {"layer": name, "kind": type(module).__name__, "weights": _weights(module)}
        for output in outputs:
            self._mark(output, name, type(module).__name__)

    def _mark(self, output: Tensor, name: str, kind: str) -> None:
        """Watch the backward pass of every operation that made a tensor and that no layer within this one has."""
        left: list[Any] = [output.grad_fn]  # a node's metadata is a dict, which torch's types call a method
        while left:
            node = left.pop()
            if node is None or _MARK in node.metadata or node.name().endswith("AccumulateGrad"):
                continue
            node.metadata[_MARK] = name
            node.register_hook(partial(self._passed, name, kind, node.name()))
            left += [following for following, _ in node.next_functions]

    def _passed(self, name: str, kind: str, operation: str, made: Any, given: Any) -> None:
        if self.backward is not None:
            return
        if not all(map(_finite, _tensors(given))):
            what = f"the loss, or what is computed between it and {name}, which is the first layer that it reaches"
            self.backward = {"layer": None, "what": what}
        elif not all(map(_finite, _tensors(made))):
            self.backward = {"layer": name, "kind": kind, "operation": operation}

    def _stepped(self, optimizer: Any, arguments: Any, options: Any) -> None:
        if self.step_of_optimizer is None:
            bad = [name for name, one in named_parameters(self._agent).items() if not _finite(one)]
            if bad:
                self.step_of_optimizer = {
                    "parameters": bad,
                    "update": getattr(self._agent.algorithm, "num_updates", None),
                    "step": self._agent.step,
                }

    def finding(self) -> dict[str, Any]:
        """What came first, in words and in parts."""
        if self.step_of_optimizer is not None:
            names = self.step_of_optimizer["parameters"]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            update, step = self.step_of_optimizer["update"], self.step_of_optimizer["step"]
            words = (
                f"a step of an optimiser in update {update}, at step {step:,}, took {', '.join(names[:3])}{more} there"
            )
            layer = names[0].rpartition(".")[0]
            return {"pass": "optimizer", "layer": layer, "words": words, **self.step_of_optimizer}
        for way, found in (("forward", self.forward), ("backward", self.backward)):
            if found is None:
                continue
            if found["layer"] is None:
                return {"pass": way, "words": f"{way}, in {found['what']}", **found}
            words = f"{way}, in {found['layer']} ({found['kind']})"
            words += f", its {found['operation']}" if "operation" in found else ""
            words += f", whose weights {found['weights']}" if found.get("weights") else ""
            return {"pass": way, "words": words, **found}
        words = "outside of the layers: all that they return and pass back is finite, and the loss is not"
        return {"pass": "loss", "layer": None, "words": words}


def find_nonfinite(folder: Path, allow: Any = (), device: str | None = None) -> dict[str, Any]:
    """Run a run that ended in numbers that are not finite again, from its last checkpoint, to where they came from.

    Args:
        folder: The run's; nothing is written there.
        allow, device: As in moment.

    Returns:
        The step, the error, the layer, and the batch's tensors by name.

    Raises:
        ConfigError: If the run has no such end, or does not go the same way twice.
        CorruptError: If it cannot be read, or comes to no such end.
    """
    history = read_history(folder, allow, device) if _has_checkpoint(folder) else None
    batches = sorted(int(found[1]) for path in folder.glob("nonfinite-*") if (found := _BATCH.fullmatch(path.name)))
    failed = stored_status(folder).get("exit_code") == NonFiniteError.exit_code
    if not batches and not failed:
        raise ConfigError(f"{folder} has no nonfinite-<step> and did not end with code 4: no number was not finite")
    if history is None:
        raise ConfigError(f"{folder} has no checkpoint to begin with; lower checkpoint_interval and run it again")
    if history.inexact:
        raise ConfigError(f"this run does not go the same way twice: {history.inexact}")
    last = batches[-1] if batches else int(stored_status(folder).get("steps") or 2**62)
    begun = next((kept for kept in reversed(history.kept) if kept.step <= last), None)
    with again(history, begun, history.settings(history.kept[-1])) as (agent, temporary), Tracer(agent) as tracer:
        try:
            run_until(agent, lambda: agent.step > last)
        except NonFiniteError as error:
            sentence = str(error).partition("; its batch is in")[0]
        else:
            raise CorruptError(
                f"the rerun from {begun or 'the start'} comes to step {agent.step:,} and all its numbers are finite; "
                "on another machine, or with other versions, it may go another way"
            )
        place = temporary / f"nonfinite-{agent.step}"
        batch = tensors_of(read_state(place)[0]) if place.is_dir() else {}
        kept = folder / f"nonfinite-{agent.step}"
        same = _same(batch, tensors_of(read_state(kept)[0])) if batch and kept.is_dir() else None
        where = {"step": agent.step, "from": str(begun) if begun else "the start", "error": sentence}
        return {**where, **tracer.finding(), "batch_is_the_saved_one": same, "batch": batch}


def _has_checkpoint(folder: Path) -> bool:
    return (folder / "checkpoints").is_dir() and any((folder / "checkpoints").iterdir())


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return not list(differences(one, other))


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [part for one in value for part in _tensors(one)] if isinstance(value, list | tuple) else []


def _weights(module: nn.Module) -> str:
    """What is remarkable of a layer's own weights, in words."""
    values = [parameter.detach() for parameter in module.parameters(recurse=False)]
    if not values:
        return ""
    if not all(map(_finite, values)):
        return "are not finite themselves"
    return f"go up to {max(float(value.abs().max()) for value in values):.3g}"
