"""Checks a config against the constructors that it names, before anything is built."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hsw.bounds import Range
from hsw.config.targets import resolve_target, walk_targets
from hsw.config.words import meant
from hsw.errors import ConfigError
from hsw.signatures import Signature, signature_of

# Kinds of groups, as annotations of the root's keys: one target; one or null; by name; one, or by name.
Target = dict[str, Any]
OptionalTarget = dict[str, Any] | None
NamedTargets = dict[str, dict[str, Any]]
OneOrNamedTargets = dict[str, Any] | dict[str, dict[str, Any]]
GROUPS = (Target, OptionalTarget, NamedTargets, OneOrNamedTargets)
_NAMED = (NamedTargets, OneOrNamedTargets)
# What the running program hands to a constructor, by group; no config says it.
HANDED_OVER: dict[str, set[str]] = {
    "env": set(),
    "network": set(),
    "storage": set(),
    "algorithm": {"policy"},
    "agent": {"env", "policy", "algorithm", "storage", "eval_env", "run", "callbacks", "augmentation", "pool"},
    "logger": set(),
    "callbacks": set(),
    "pool": {"crew"},
}
_WRAPPER = re.compile(r"env\.(eval_)?wrappers\.\d+")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


class UnknownKeyError(ConfigError):
    """A key that is not there, by its dotted name."""

    def __init__(self, key: str, hint: str) -> None:
        super().__init__(f"there is no {key}{hint}")
        self.key = key


def find_targets(config: dict[str, Any], settings: type, allowed: Any = ()) -> dict[str, Any]:
    """The target of each place of a plain config that has one.

    Args:
        config: The resolved config.
        settings: A dataclass whose fields are the root's keys; those annotated Target, OptionalTarget, NamedTargets or
            OneOrNamedTargets are groups.
        allowed: Further packages that targets may come from.

    Returns:
        By place: env, or callbacks.early_stop of a mapping of names to targets.

    Raises:
        ConfigError: If a target is not to be trusted, anywhere in the config, or a group has none.
    """
    if not isinstance(allowed, list | tuple):
        raise ConfigError(f"allow={_shown(allowed)} must be a list, such as allow=[my_package]")
    for _, node in walk_targets(config):
        resolve_target(node["_target_"], allowed)
    targets: dict[str, Any] = {}
    for key, hint in typing.get_type_hints(settings, include_extras=True).items():
        if key not in config:
            raise ConfigError(f"{key} is missing; it must be set")
        if hint not in GROUPS or (config[key] is None and hint == OptionalTarget):
            continue
        if hint == NamedTargets and "_target_" in (config[key] or {}):
            raise ConfigError(
                f"{key} have names; the file of {key}=[<choice>] needs a line such as '<choice>:' above its _target_, "
                "and what follows indented"
            )
        for place, node in _places(key, config[key], hint):
            if not isinstance(node, dict) or "_target_" not in node:
                named = f", or a mapping of names to such mappings, as {key}.<name>._target_" * (hint in _NAMED)
                raise ConfigError(f"{place} must be a choice of conf/{key}, or a mapping with a _target_{named}")
            targets[place] = resolve_target(node["_target_"], allowed)
    return targets


def _places(key: str, node: Any, hint: Any) -> list[tuple[str, Any]]:
    """Where a group has its targets."""
    if hint not in _NAMED or not isinstance(node, dict) or (hint == OneOrNamedTargets and "_target_" in node):
        return [(key, node)]
    return [(f"{key}.{name}", inner) for name, inner in node.items()]


def check_config(
    config: dict[str, Any],
    settings: type,
    targets: dict[str, Any],
    allowed: Iterable[str] = (),
    copies: Collection[str] = (),
) -> list[tuple[str, int]]:
    """Check every key, type and range of a plain config.

    Args:
        config: The resolved config; `???` marks what is missing. Numbers such as 1e5 become whole numbers where these
            are expected.
        settings: A dataclass whose fields are the root's keys.
        targets: What find_targets returned.
        allowed: Further packages that targets may come from.
        copies: Dotted names of values that are those of other keys; these are to blame first.

    Returns:
        The values that became whole numbers, by dotted name.

    Raises:
        ConfigError: For the first thing that is wrong, with the nearest right name or the allowed range.
    """
    signatures = {place: signature_of(target) for place, target in targets.items()}
    places = {place: dict(signature.hints) for place, signature in signatures.items()}
    for place, names in HANDED_OVER.items():
        for name in names & places.get(place, {}).keys():
            del places[place][name]
    places[""] = typing.get_type_hints(settings, include_extras=True)
    nodes = {place: _select(config, place) for place in targets}
    whole: list[tuple[str, int]] = []
    for skipped in (copies, ()):
        _check_node(config, "", places[""], places, skipped, whole)
        for place in sorted(targets, key="env".__eq__):  # env last: its discount is the storage's
            known = None if signatures[place].open else places
            _check_node(nodes[place], place, places[place], known, skipped, whole)
    for place, node in nodes.items():
        _check_nested(node, place, allowed, whole, top=True)
        if not inspect.ismethod(targets[place]):  # a factory takes some of them later
            _check_required(node, place, signatures[place])
    return whole


def check_values(values: dict[str, Any], settings: type, path: str) -> dict[str, Any]:
    """Check values that no group of the config has.

    Args:
        values: By name.
        settings: A dataclass whose fields are the names that there are.
        path: What stands before the names on a command line.

    Returns:
        The values, with numbers such as 1e5 whole where these are expected.

    Raises:
        ConfigError: For the first thing that is wrong, with the nearest right name or the allowed range.
    """
    checked = dict(values)
    hints = typing.get_type_hints(settings, include_extras=True)
    _check_node(checked, path, hints, {path: hints}, (), [])
    return checked


def _select(config: dict[str, Any], place: str) -> dict[str, Any]:
    node: Any = config
    for name in place.split(".", 1):
        node = node[name]
    assert isinstance(node, dict)  # it has a _target_
    return node


def _check_required(node: dict[str, Any], place: str, signature: Signature) -> None:
    group = place.split(".")[0]
    missing = sorted(signature.required - node.keys() - HANDED_OVER.get(group, set()))
    if missing and group in HANDED_OVER and "_args_" not in node:
        raise ConfigError(
            f"{place}.{missing[0]} is missing: {node['_target_']} needs it; set +{place}.{missing[0]}=<value>"
        )


def _check_node(
    node: dict[str, Any],
    path: str,
    hints: dict[str, Any],
    places: dict[str, dict[str, Any]] | None,
    skipped: Collection[str],
    whole: list[tuple[str, int]],
) -> None:
    """Check a mapping against what its target takes; with places None, that is any other key too."""
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        if str(key).startswith("_") or name in skipped:
            continue
        if key not in hints and places is not None:
            known = [f"{group}.{parameter}" if group else parameter for group in places for parameter in places[group]]
            raise UnknownKeyError(name, meant(name, known))
        if value == "???":
            raise ConfigError(f"{name} is missing; set {name}=<value>")
        node[key] = _checked(value, hints.get(key, Any), name, whole)


def _check_nested(node: Any, path: str, allowed: Iterable[str], whole: list[tuple[str, int]], top: bool) -> None:
    if isinstance(node, list):
        for index, value in enumerate(node):
            _check_nested(value, f"{path}.{index}", allowed, whole, top=False)
    if isinstance(node, dict):
        if "_target_" in node and not top:
            signature = signature_of(resolve_target(node["_target_"], allowed))
            hints = signature.hints
            if _WRAPPER.fullmatch(path):
                hints = _of_wrapper(hints)
            elif path in ("network.encoder", "network.distribution"):
                hints = dict(list(hints.items())[1:])  # the space is handed over
            _check_node(node, path, hints, None if signature.open else {path: hints}, (), whole)
        for key, value in node.items():
            _check_nested(value, f"{path}.{key}", allowed, whole, top=False)


def _of_wrapper(hints: dict[str, Any]) -> dict[str, Any]:
    """What a config may say of a wrapper: not its env. Of types that YAML has no word for, anything may be."""
    plain = (bool, int, float, str, None, type(None))
    kept: dict[str, Any] = {}
    for name, hint in hints.items():
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        known = all(option in plain or get_origin(option) is Literal for option in options)
        kept[name] = hint if known else Any
    kept.pop("env", None)
    return kept


def _checked(value: Any, hint: Any, name: str, whole: list[tuple[str, int]]) -> Any:
    """A value that its annotation allows; a float that stands for a whole number as that."""
    bounds = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), None)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if not any(_fits(value, option) for option in options):
        if int in options and isinstance(value, float) and value.is_integer():
            value = int(value)
            whole.append((name, value))
        else:
            items = [_item_hint(option) for option in options if _item_hint(option) is not None]
            if isinstance(value, list) and items:  # the item is to blame
                hint = Union[tuple(items)]  # noqa: UP007  the items are known at run time only
                return [_checked(item, hint, f"{name}.{index}", whole) for index, item in enumerate(value)]
            expected = " or ".join(dict.fromkeys(word for option in options if (word := _describe(option))))
            raise ConfigError(f"{name}={_shown(value)} must be {expected}")
    for item in value if isinstance(value, list) else [value]:  # a list's bounds are its items'
        number = isinstance(item, int | float) and not isinstance(item, bool)
        if bounds is not None and number and item not in bounds:
            raise ConfigError(f"{name}={_shown(value)} must be {bounds}")
    return value


def _item_hint(hint: Any) -> Any:
    """What the items of a list have to be; None of what is no list."""
    origin = get_origin(hint)
    is_list = isinstance(origin, type) and issubclass(list, origin)
    return get_args(hint)[0] if is_list and get_args(hint) else None


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if hint is Any:
        return True
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if isinstance(value, dict) and "_target_" in value:
        return True  # an object, which _check_nested looks into
    if isinstance(origin, type) and issubclass(origin, dict):
        return isinstance(value, dict)
    if isinstance(value, list):
        item = _item_hint(hint)
        accepts = isinstance(origin, type) and issubclass(list, origin)
        return accepts and (item is None or all(_fits(part, item) for part in value))
    return False


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if hint is None or hint is type(None):
        return "null"
    origin = get_origin(hint) or hint
    if origin in _WORDS:
        return _WORDS[origin]
    if origin is dict:
        return "a mapping"
    return "a list" if isinstance(origin, type) and issubclass(list, origin) else "an object with a _target_"


def _shown(value: Any) -> str:
    """A value as it stands in YAML."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
