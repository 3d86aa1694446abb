"""Where tensors live."""

from __future__ import annotations

import torch

from hsw.errors import ConfigError


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
    return resolved
