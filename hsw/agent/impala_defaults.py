"""What DistributedAgent makes of plain arguments: IMPALA's networks and losses, and what these sizes must be."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from hsw.algorithm import IMPALA
from hsw.errors import ConfigError
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


def check_slots(num_envs: int, num_storages: int, batch_size: int) -> None:
    """An actor takes slots for all its environments at once, and a learner waits for a whole batch.

    Neither may starve while the learner holds all but one of its batch, and one less than an actor needs are free.
    """
    needed = batch_size + num_envs - 1
    if num_storages < needed:
        raise ConfigError(
            f"num_storages={num_storages} does not keep both a batch of batch_size={batch_size} and an actor with "
            f"{num_envs} environments going; it must be at least {needed}"
        )
