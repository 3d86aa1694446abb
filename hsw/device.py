"""Where tensors live."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hsw.errors import ConfigError
from hsw.ranks import current


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device of a name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: If there is no such device on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device={device} is not a device; use auto, cpu, cuda or cuda:<index>") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device}, but torch sees no CUDA device; use device=cpu or device=auto")
    ranks = current()
    if resolved.type == "cuda" and resolved.index is None and ranks.size > 1:
        return torch.device("cuda", ranks.local_rank)  # also in threads, whose current device is the first
    return resolved


def has_bf16(device: torch.device) -> bool:
    """Whether a device reckons in bfloat16 by itself, and does not only imitate it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def require_precision(precision: str, device: str | torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        ConfigError: If it is bf16, and the device has none.
    """
    if precision == "bf16" and not has_bf16(resolved := resolve_device(device)):
        raise ConfigError(f"precision=bf16, and {resolved} has no bfloat16; take precision=fp32, or another device")


def device_of(module: Any) -> torch.device | None:
    """Where a module's tensors are; None if it has none, or is no module."""
    if not isinstance(module, nn.Module):
        return None
    first = next(chain(module.parameters(), module.buffers()), None)
    return None if first is None else first.device


def move_owned(owner: object, device: torch.device) -> None:
    """Move the tensors and modules among an object's attributes, also within lists, tuples and dicts of them."""
    for name, value in list(vars(owner).items()):
        moved = _moved(value, device)
        if moved is not value:
            setattr(owner, name, moved)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, nn.Module):
        return value.to(device)
    if isinstance(value, nn.Parameter):  # stays the one that others hold
        if value.device != device:
            value.data = value.data.to(device)
            value.grad = None if value.grad is None else value.grad.to(device)
        return value
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        for key, part in value.items():
            value[key] = _moved(part, device)
    elif isinstance(value, list):
        value[:] = [_moved(part, device) for part in value]
    elif type(value) is tuple:
        moved = [_moved(part, device) for part in value]
        return value if all(map(lambda a, b: a is b, moved, value)) else tuple(moved)
    return value
