"""Checks a config against the constructors that it names, before anything is built."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hsw.bounds import Range
from hsw.config.targets import resolve_target, walk_targets
from hsw.errors import ConfigError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def find_targets(config: dict[str, Any], settings: type, allowed: Any = ()) -> dict[str, Any]:
    """The target of each group of a plain config.

    Args:
        config: The resolved config.
        settings: A dataclass whose fields are the root's keys; those annotated dict are groups.
        allowed: Further packages that targets may come from.

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
        if get_origin(hint) is dict:
            if not isinstance(config[key], dict) or "_target_" not in config[key]:
                raise ConfigError(f"{key} must be a choice of conf/{key}, or a mapping with a _target_")
            targets[key] = resolve_target(config[key]["_target_"], allowed)
    return targets


def check_config(config: dict[str, Any], settings: type, targets: dict[str, Any], allowed: Iterable[str] = ()) -> None:
    """Check every key, type and range of a plain config.

    Args:
        config: The resolved config; `???` marks what is missing.
        settings: A dataclass whose fields are the root's keys.
        targets: What find_targets returned.
        allowed: Further packages that targets may come from.

    Raises:
        ConfigError: For the first thing that is wrong, with the nearest right name or the allowed range.
    """
    places = {group: _parameters(target) for group, target in targets.items()}
    places[""] = typing.get_type_hints(settings, include_extras=True)
    _check_node(config, "", places[""], places)
    for group in sorted(targets, key="env".__eq__):  # env last: its discount is the storage's
        node = {key: value for key, value in config[group].items() if not key.startswith("_")}
        _check_node(node, group, places[group], places)
        _check_nested(node, group, allowed)


def nearest(name: str, candidates: Collection[str]) -> str | None:
    """The candidate that a misspelt dotted name most likely means: the same leaf elsewhere, else the closest name."""
    leaf = name.rpartition(".")[2]
    group = name.rpartition(".")[0]
    leaves: dict[str, str] = {}  # by leaf: the one in the same group, else the least nested
    for candidate in sorted(candidates, key=lambda c: (c.rpartition(".")[0] != group, c.count("."))):
        leaves.setdefault(candidate.rpartition(".")[2], candidate)
    siblings = {key: whole for key, whole in leaves.items() if whole.rpartition(".")[0] == group}
    same_leaf = [leaves[leaf]] if leaf in leaves else []
    close = [known[near] for known in (siblings, leaves) for near in difflib.get_close_matches(leaf, known, 1, 0.7)]
    return next(iter(same_leaf + close), None)


def _check_node(node: dict[str, Any], path: str, hints: dict[str, Any], places: dict[str, dict[str, Any]]) -> None:
    for key, value in node.items():
        name = f"{path}.{key}" if path else key
        if key not in hints:
            known = [f"{group}.{parameter}" if group else parameter for group in places for parameter in places[group]]
            guess = nearest(name, known)
            raise ConfigError(f"there is no {name}" + (f"; did you mean {guess}?" if guess else ""))
        if value == "???":
            raise ConfigError(f"{name} is missing; set {name}=<value>")
        _check_value(value, hints[key], name)


def _check_nested(node: Any, path: str, allowed: Iterable[str]) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_nested(item, f"{path}.{index}", allowed)
    if isinstance(node, dict):
        if "_target_" in node:
            hints = _parameters(resolve_target(node["_target_"], allowed))
            if re.fullmatch(r"env\.(eval_)?wrappers\.\d+", path):
                hints = _of_wrapper(hints)
            elif path in ("network.encoder", "network.distribution"):
                hints = dict(list(hints.items())[1:])  # the space is handed over
            inner = {key: value for key, value in node.items() if not key.startswith("_")}
            _check_node(inner, path, hints, {path: hints})
        for key, value in node.items():
            _check_nested(value, f"{path}.{key}", allowed)


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


def _signature(target: Any) -> dict[str, inspect.Parameter]:
    if inspect.ismethod(target):  # a storage's create_factory takes its class's arguments, and the size
        owner = inspect.signature(target.__self__).parameters  # type: ignore[arg-type]
        return {**owner, **dict(inspect.signature(target).parameters)}
    return dict(inspect.signature(target).parameters)


def _parameters(target: Any) -> dict[str, Any]:
    """Annotations of every parameter that may be given by name."""
    constructors: list[Any] = [target]
    if inspect.ismethod(target):
        constructors.insert(0, type.__getattribute__(target.__self__, "__init__"))  # type: ignore[arg-type]
    elif inspect.isclass(target):
        constructors = [inspect.getattr_static(target, "__init__")]
    hints: dict[str, Any] = {}
    for constructor in constructors:
        hints.update(typing.get_type_hints(constructor, include_extras=True))
    named = {
        name: parameter
        for name, parameter in _signature(target).items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    return {name: hints.get(name, Any) for name in named}


def _check_value(value: Any, hint: Any, name: str) -> None:
    bounds = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), None)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if not any(_fits(value, option) for option in options):
        expected = " or ".join(dict.fromkeys(word for option in options if (word := _describe(option))))
        raise ConfigError(f"{name}={_shown(value)} must be {expected}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if bounds is not None and number and value not in bounds:
        raise ConfigError(f"{name}={value} must be {bounds}")


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
        items = get_args(hint)
        accepts = isinstance(origin, type) and issubclass(list, origin)
        return accepts and (not items or all(_fits(item, items[0]) for item in value))
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
