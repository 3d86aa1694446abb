"""Which storage, network, algorithm and agent belong together, by what they declare of themselves and by members."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from hsw.agent.protocols import Pool, listed, missing
from hsw.errors import ConfigError
from hsw.network import Policy
from hsw.signatures import signature_of


def check_pairs(targets: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a combination that cannot work.

    An agent says in Protocols what it needs of each part. An algorithm may name the kinds of policy and storage that it
    learns from, as Protocols too, or as classes: then a part is a subclass, or has what counts of the class, a policy
    its methods and extras, a storage its batches' fields. A storage takes exactly the extras that the policy gives.

    Args:
        targets: The classes of the groups agent, algorithm, network and storage; others are not looked at.
        options: For network and storage, the classes of all choices by their names in conf/.

    Raises:
        ConfigError: Naming what is missing, and the choices that work.
    """
    agent, algorithm, network, storage = (owner(targets[g]) for g in ("agent", "algorithm", "network", "storage"))
    if not all(inspect.isclass(c) for c in (agent, algorithm, network, storage)):
        return  # a function builds it; what it builds is checked when it is used

    def network_lacks(candidate: Any) -> str:
        return _lacks_of_loop(agent, "policy", candidate) or _lacks_as_policy(algorithm, candidate)

    def storage_lacks(candidate: Any) -> str:
        return (
            _lacks_of_loop(agent, "storage", candidate)
            or _lacks_as_storage(algorithm, candidate)
            or _lacks_for_extras(network, candidate)
        )

    def choices(group: str, lacks: Any) -> str:
        names = [f"{group}={name}" for name, target in options[group].items() if not lacks(owner(target))]
        return " or ".join(names) or f"none in conf/{group}"

    lacks = _lacks_of_loop(agent, "algorithm", algorithm)
    if lacks:
        raise ConfigError(f"{agent.__name__} cannot use {algorithm.__name__}: {lacks}")
    # The algorithm's word comes first: that it trains another network says more than a method that the loop misses.
    lacks = _lacks_as_policy(algorithm, network)
    if lacks:
        raise ConfigError(
            f"{algorithm.__name__} cannot train {network.__name__}: {lacks}; take "
            f"{choices('network', lambda candidate: _lacks_as_policy(algorithm, candidate))}"
        )
    lacks = storage_lacks(storage)
    if lacks:
        raise ConfigError(
            f"{agent.__name__} with {algorithm.__name__} cannot use {storage.__name__}: {lacks}; "
            f"take {choices('storage', storage_lacks)}"
        )
    lacks = network_lacks(network)
    if lacks:
        raise ConfigError(
            f"{agent.__name__} cannot use {network.__name__}: {lacks}; take {choices('network', network_lacks)}"
        )


def check_pool(targets: Mapping[str, Any]) -> None:
    """Refuse a pool of actors for an agent that has none, and one that lacks what the agent needs of it.

    Raises:
        ConfigError: Naming what is missing.
    """
    pool, agent = owner(targets.get("pool")), owner(targets["agent"])
    if pool is None:
        return
    signature = signature_of(agent)
    if "pool" not in signature.hints and not signature.open:
        raise ConfigError(
            f"pool={pool.__name__} is where actors run, and {agent.__name__} has none; leave pool out, or take an "
            "agent with actors, such as agent=impala"
        )
    lacks = missing(pool, Pool) if inspect.isclass(pool) else []
    if lacks:
        raise ConfigError(
            f"{pool.__name__} cannot be the pool: it has no {listed(lacks)} (see Pool in {Pool.__module__})"
        )


def _lacks_of_loop(agent: Any, part: str, candidate: Any) -> str:
    return _lacks_of(getattr(agent, "needs", {}).get(part), candidate)


def _lacks_of(protocol: Any, candidate: Any) -> str:
    names = missing(candidate, protocol) if protocol else []
    return f"it has no {listed(names)}" if names else ""


def _lacks_as_policy(algorithm: Any, candidate: Any) -> str:
    """What a policy lacks of the kind that an algorithm trains."""
    kind = getattr(algorithm, "policy_type", None)
    if kind is None or getattr(kind, "_is_protocol", False):
        return _lacks_of(kind, candidate)
    if issubclass(candidate, kind):
        return ""
    given_to_all = set(dir(Policy)) - Policy.__abstractmethods__  # the loop asks for what it needs of these
    names = [name for name in dir(kind) if not name.startswith("_") and name not in given_to_all]
    gone = [name for name in names if callable(getattr(kind, name)) and not hasattr(candidate, name)]
    if gone:
        return f"it is no {kind.__name__}, and has no {listed(gone)}"
    # Methods of one name may mean other things; what act gives beside its actions tells.
    wanted, given = getattr(kind, "extras", ()), getattr(candidate, "extras", ())
    return "" if set(wanted) == set(given) else f"it is no {kind.__name__}, and its extras are not {listed(wanted)}"


def _lacks_as_storage(algorithm: Any, candidate: Any) -> str:
    """What a storage's batches lack of those that an algorithm learns from; nothing where it does not tell of them."""
    kind = getattr(algorithm, "storage_type", None)
    if kind is None or getattr(kind, "_is_protocol", False):
        return _lacks_of(kind, candidate)
    if issubclass(candidate, kind):
        return ""
    wanted, given = (getattr(part, "Batch", None) for part in (kind, candidate))
    if not dataclasses.is_dataclass(wanted) or not dataclasses.is_dataclass(given):
        return ""
    fields = {field.name for field in dataclasses.fields(given)}
    gone = [field.name for field in dataclasses.fields(wanted) if field.name not in fields]
    return f"it is no {kind.__name__}, and its batches have no {listed(gone)}" if gone else ""


def _lacks_for_extras(network: Any, candidate: Any) -> str:
    given, taken = network.extras, candidate.extras()
    if set(given) == set(taken):
        return ""
    return f"it stores {_named(taken)}, and {network.__name__} gives {_named(given)}"


def _named(extras: Any) -> str:
    return listed(extras) if extras else "nothing beside actions"


def owner(target: Any) -> Any:
    """The class of a target: itself, or the one whose factory it is."""
    return target.__self__ if inspect.ismethod(target) else target
