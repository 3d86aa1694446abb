"""Which storage, network, algorithm and agent belong together, by what they declare of themselves."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hsw.errors import ConfigError


def check_pairs(targets: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a combination that cannot work.

    An algorithm names the kinds of policy and storage that it learns from, an agent the kind of storage that it fills,
    and a storage takes exactly the extras that the policy gives.

    Args:
        targets: The classes of the groups agent, algorithm, network and storage; others are not looked at.
        options: For network and storage, the classes of all choices by their names in conf/.

    Raises:
        ConfigError: Naming the choices that work.
    """
    agent, algorithm, network, storage = (owner(targets[g]) for g in ("agent", "algorithm", "network", "storage"))
    if not all(inspect.isclass(c) for c in (agent, algorithm, network, storage)):
        return  # a function builds it; what it builds is checked by use

    def network_fits(candidate: Any) -> bool:
        return issubclass(candidate, algorithm.policy_type)

    def storage_fits(candidate: Any) -> bool:
        kinds = issubclass(candidate, agent.storage_type) and issubclass(candidate, algorithm.storage_type)
        return kinds and set(candidate.extras()) == set(network.extras)

    def choices(group: str, fits: Any) -> str:
        names = [f"{group}={name}" for name, target in options[group].items() if fits(owner(target))]
        return " or ".join(names) or f"none in conf/{group}"

    if not network_fits(network):
        raise ConfigError(
            f"{algorithm.__name__} cannot train {network.__name__}; take {choices('network', network_fits)}"
        )
    if not storage_fits(storage):
        raise ConfigError(
            f"{agent.__name__} with {algorithm.__name__} cannot use {storage.__name__}; "
            f"take {choices('storage', storage_fits)}"
        )


def owner(target: Any) -> Any:
    """The class of a target: itself, or the one whose factory it is."""
    return target.__self__ if inspect.ismethod(target) else target
