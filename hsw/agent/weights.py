"""A policy's weights, from a checkpoint or a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import torch

from hsw.errors import ConfigError, CorruptError
from hsw.run.folder import write_whole
from hsw.template import StateError, hold, template_of

log = logging.getLogger("hsw")


class _Weights(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def load_policy(policy: _Weights, weights: dict[str, torch.Tensor]) -> None:
    """Load weights into a policy.

    Raises:
        StateError: If they are of another network, naming what differs, or not finite.
    """
    check_policy(policy, weights)
    policy.load_state_dict(weights)


def check_policy(policy: _Weights, weights: Any) -> None:
    """Refuse weights that are not of a policy.

    Raises:
        StateError: Naming what differs.
    """
    own = policy.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise StateError("the checkpoint has no weights of a policy")
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [
        f"{key} is {tuple(weights[key].shape)} and should be {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(weights))
        if own[key].shape != weights[key].shape
    ]
    if missing or unknown or shapes:
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise StateError(f"the checkpoint is of another network or environment: {'; '.join(parts + shapes)}")
    hold(template_of(own), weights, "policy")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file's tensors.

    Raises:
        ConfigError: If there is none.
        CorruptError: If it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ConfigError(f"there is no file {path} to take weights from")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{path} cannot be read: {error}") from error


def write_weights(path: Path, policy: _Weights) -> None:
    """Write what read_weights reads.

    Raises:
        ResourceError: If the disk does not take it.
    """
    from safetensors.torch import save

    write_whole(path, save({name: value.contiguous().clone() for name, value in policy.state_dict().items()}))
    log.info("weights: %s", path)
