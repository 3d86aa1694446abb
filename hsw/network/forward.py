"""How a policy's networks compute: in bfloat16, compiled, or as they are written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from hsw.device import has_bf16
from hsw.network.distribution import Distribution

log = logging.getLogger("hsw")


class Forward:
    """Stands in for the forward of one network, whose parameters stay as they are; what comes out is float32.

    A copy, in this process or another, computes without the compiler.

    Args:
        module: The network.
        bf16: Matrix products and convolutions in bfloat16, where the network's device has it.
        compiled: By torch.compile. The first failure is told, and from then on all networks of the process are eager.
    """

    def __init__(self, module: nn.Module, bf16: bool, compiled: bool) -> None:
        self.module, self.bf16 = module, bf16
        self._eager: Any = MethodType(type(module).forward, module)
        self.compiled: Any = None
        if compiled:
            from torch._functorch import config

            config.force_non_lazy_backward_lowering = True  # what fails in it is to fail here, and not in a loss's
            self.compiled = torch.compile(self._eager)

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (), {"module": self.module, "bf16": self.bf16}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _eager=MethodType(type(state["module"]).forward, state["module"]), compiled=None)

    def __call__(self, *args: Any, **named: Any) -> Any:
        first = next(self.module.parameters())
        if not self.bf16 or not has_bf16(first.device):
            return self._run(*args, **named)
        with torch.autocast(first.device.type, torch.bfloat16):
            return _in_float32(self._run(*args, **named))

    def _run(self, *args: Any, **named: Any) -> Any:
        if self.compiled is not None and not _failures and not torch.compiler.is_compiling():
            try:
                return self.compiled(*args, **named)
            except Exception as error:  # the compiler's own, its C compiler's, or the network's, which comes again
                told = " ".join(str(error).split())[:200]
                eager = self._eager(*args, **named)
                _tell_once(f"{type(self.module).__name__} is not compiled ({type(error).__name__}: {told})")
                return eager
        return self._eager(*args, **named)


def _blank() -> Forward:
    return Forward.__new__(Forward)


def adapt(policy: nn.Module, bf16: bool = False, compiled: bool = False) -> None:
    """Make a policy's networks compute so; with neither, as they are written."""
    for module in list(_networks(policy)):
        vars(module).pop("forward", None)
        if bf16 or compiled:
            vars(module)["forward"] = Forward(module, bf16, compiled)


def is_adapted(module: nn.Module) -> bool:
    """Whether a network computes otherwise than its class's forward says."""
    return "forward" in vars(module)


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules within one that are called and have parameters; distributions reckon with their outputs."""
    for child in module.children():
        if isinstance(child, Distribution) or next(child.parameters(), None) is None:
            continue
        if type(child).forward is nn.Module.forward or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        else:
            yield child


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, tuple | list):
        return type(value)(map(_in_float32, value))
    return {key: _in_float32(part) for key, part in value.items()} if isinstance(value, dict) else value


_failures: list[str] = []  # of this process: what one network lacks the others do too


def _tell_once(what: str) -> None:
    if not _failures:
        log.warning("%s; the run computes eagerly", what)
    _failures.append(what)
