"""What DistributedAgent makes of plain arguments: IMPALA's networks and losses, and weights from a file."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

import torch

from hsw.algorithm import IMPALA
from hsw.errors import ConfigError, CorruptError
from hsw.network import RecurrentActorCritic


def _arguments(kind: type, *given: str) -> set[str]:
    return set(inspect.signature(kind).parameters) - set(given)


_POLICY = _arguments(RecurrentActorCritic, "observation_space", "action_space")
_ALGORITHM = _arguments(IMPALA, "policy")


def check_names(recipe: dict[str, Any]) -> None:
    """Refuse an argument that nothing takes, with a TypeError that names the nearest."""
    known = sorted(_POLICY | _ALGORITHM | {"num_envs", "batch_size", "hidden_dim"})
    for name in recipe:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise TypeError(f"DistributedAgent has no argument {name!r}; did you mean {near!r}?")


def policy_of(spaces: tuple[Any, Any], recipe: dict[str, Any]) -> RecurrentActorCritic:
    """The networks for an observation and an action space."""
    arguments = {name: value for name, value in recipe.items() if name in _POLICY}
    if "hidden_dim" in recipe:
        arguments["hidden_sizes"] = (recipe["hidden_dim"],) * 2
    return RecurrentActorCritic(*spaces, **arguments)


def algorithm_of(policy: Any, recipe: dict[str, Any]) -> IMPALA:
    """The losses for a policy."""
    return IMPALA(policy, **{name: value for name, value in recipe.items() if name in _ALGORITHM})


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
