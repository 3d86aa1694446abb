"""Beginning with weights that another run has learnt."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from hsw.agent.weights import read_weights
from hsw.errors import ConfigError, CorruptError
from hsw.run.checkpoint import all_finite, load_newest

log = logging.getLogger("hsw")
_SHOWN = 6


def begin_from(agent: Any, source: Path) -> None:
    """Give an agent's networks the weights of another run that fit by name and shape, and say which do not.

    Heads may have another shape, as those of another number of actions have, and begin anew. Other tensors may be
    missing on either side, as between algorithms; but one with another shape belongs to another network or observation,
    and taking the rest would look like a beginning and be none.

    Args:
        agent: New.
        source: A run's folder (its newest checkpoint, with its observation statistics), its folder `best`, or a
            safetensors file.

    Raises:
        ConfigError: If there are no weights, or they are of another network.
        CorruptError: If they cannot be read, or are not finite.
    """
    weights, statistics = _read(source)
    if not all_finite(weights):
        raise CorruptError(f"init_from={source}: the weights hold NaN or infinite numbers")
    own = agent.policy.state_dict()
    fits = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    other = [name for name in own if name in weights and name not in fits]
    wrong = [name for name in other if not _is_head(name)]
    if wrong or not fits:
        shapes = [f"{name} is {_shape(weights[name])} there and {_shape(own[name])} here" for name in wrong]
        raise ConfigError(
            f"init_from={source} is of another network or observation: {_listed(shapes) or 'no tensor has its name'}"
        )
    agent.policy.load_state_dict({**own, **fits})
    _take_statistics(agent.env, statistics, source)
    new = [*other, *(name for name in own if name not in weights)]
    left = [name for name in weights if name not in own]
    told = f"init_from={source}: {len(fits)} of {len(own)} tensors taken"
    told += f"; begun anew: {_listed(new)}" if new else ""
    told += f"; left: {_listed(left)}" if left else ""
    if agent.env.obs_statistics() and not statistics:
        told += "; observation statistics begin anew"
    log.log(logging.WARNING if new else logging.INFO, told)


def _read(source: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights by name, and the observation statistics that belong to them."""
    if not source.is_dir():
        if not source.exists():
            raise ConfigError(f"init_from={source}: there is neither a run's folder nor a file of weights")
        return read_weights(source), {}
    folder = source if source.name == "best" else source / "checkpoints"
    if not folder.is_dir():
        raise ConfigError(f"init_from={source}: there is no run, it has no folder checkpoints")
    state, _, complaints, _ = load_newest(folder, rows=False)
    for complaint in complaints:
        log.warning("%s; the checkpoint before it is used", complaint)
    weights, env = state.get("policy"), state.get("env")
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CorruptError(f"init_from={source}: the checkpoint holds no weights")
    return weights, env.get("obs_statistics", {}) if isinstance(env, dict) else {}


def _take_statistics(env: Any, statistics: dict[str, Any], source: Path) -> None:
    own = env.obs_statistics()
    if not own or not statistics:
        return
    try:
        kinds = (own, statistics)
        shapes = [{key: _shape(torch.as_tensor(part["mean"])) for key, part in kept.items()} for kept in kinds]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptError(f"init_from={source}: the checkpoint holds no statistics of observations") from error
    if shapes[0] != shapes[1]:
        raise ConfigError(f"init_from={source} has the statistics of other observations: {shapes[1]}, not {shapes[0]}")
    env.load_obs_statistics(statistics)


def _is_head(name: str) -> bool:
    """Whether a tensor's shape follows from the actions or rewards: of a head, or of a distribution."""
    return any(part == "distribution" or part.endswith("head") for part in name.split("."))


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
