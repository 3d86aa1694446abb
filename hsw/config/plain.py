"""A config as plain values, which is what is checked and what is built.

A composed config may hold interpolations and be resolved once; of a run folder's config none are taken, because a
folder is data. After that no value is looked up anywhere again, so that what was checked cannot become something else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hsw.bounded_yaml import MAX_BYTES, check_bounds
from hsw.directory import is_file, read_file
from hsw.errors import ConfigError, CorruptError

SPACES = ("observation_space", "action_space")
_MARK = "\0{}\0"  # stands for a space, which the environment tells when it is built
_CONVERT = ("none", "partial", "object", "all")


def settle(config: DictConfig) -> DictConfig:
    """A config with every interpolation resolved, but for the spaces, where they are still unknown.

    Args:
        config: Composed, or settled already.

    Returns:
        A config of plain values. A value that was an unknown space is `${observation_space}` or `${action_space}`
        alone, which only the environment that is built can fill in.

    Raises:
        ConfigError: If an interpolation cannot be resolved, or the config holds what none may, see check_words.
    """
    config = config.copy()
    unknown = [key for key in SPACES if OmegaConf.is_missing(config, key) or config.get(key) is None]
    with open_dict(config):
        for key in unknown:
            config[key] = _MARK.format(key)
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    check_words({key: value for key, value in plain.items() if key not in unknown})
    marks = {_MARK.format(key): f"${{{key}}}" for key in unknown}
    settled = _replaced(plain, marks)
    settled.update(dict.fromkeys(unknown, "???"))
    result = OmegaConf.create(settled)
    assert isinstance(result, DictConfig)
    return result


def read_stored(folder: Path) -> dict[str, Any]:
    """The config that a run saved, as plain values.

    Raises:
        ConfigError: If there is no run in the folder.
        CorruptError: If its config cannot be read, or holds what a stored one never does.
    """
    path = folder / "config.yaml"
    if not path.exists() and not path.is_symlink():
        raise ConfigError(f"there is no run in {folder}: it has no config.yaml")
    try:
        text = read_file(folder, path.name, MAX_BYTES)
        check_bounds(text, interpolations=False)
        plain: Any = OmegaConf.to_container(OmegaConf.create(text.decode()), resolve=False)
        if not isinstance(plain, dict):
            raise ValueError("is no config")
        check_words(plain)
        return plain
    except CorruptError:
        raise
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    except Exception as error:  # YAML's, OmegaConf's and Unicode's errors have no common base
        detail = str(error).splitlines()[0] if isinstance(error, ValueError) else type(error).__name__
        raise CorruptError(f"{path} cannot be read: it {detail}") from error


def has_config(folder: Path) -> bool:
    """Whether there is something called config.yaml in a folder, to be read or refused."""
    return (folder / "config.yaml").is_symlink() or is_file(folder, "config.yaml")


def check_words(plain: Any, path: str = "") -> None:
    """Refuse the words that would have Hydra do more than call a target with the arguments that stand beside it.

    Args:
        plain: Plain values.
        path: Of them.

    Raises:
        ConfigError: If there is an underscore key other than _target_, _partial_ and _convert_, a value of one of
            these that is none, a key that is no text, or an interpolation.
    """
    for node, name, key, value in _entries(plain, path):
        if isinstance(node, dict):
            _check_key(name, key, value, node.get("_target_"))
        if isinstance(value, str) and ("${" in value or "\0" in value) and value not in _KNOWN:
            raise ConfigError(f"{name} has an interpolation that nothing resolves, or a null character")


_KNOWN = {_MARK.format(key) for key in SPACES} | {f"${{{key}}}" for key in SPACES}


def _check_key(name: str, key: Any, value: Any, target: Any) -> None:
    if not isinstance(key, str):
        raise ConfigError(f"the key {name} must be text")
    if key == "_target_":
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be the dotted name of a class or function")
    elif key == "_partial_":
        if not isinstance(value, bool):
            raise ConfigError(f"{name}={value} must be true or false")
    elif key == "_convert_":
        if value not in _CONVERT:
            raise ConfigError(f"{name}={value} must be one of {', '.join(_CONVERT)}")
    elif key.startswith("_") and (key.endswith("_") or not _in_space(name)):
        beside = f" beside _target_={target}" if target is not None else ""
        raise ConfigError(f"{name} is not allowed{beside}: keys with _ in front are _target_, _partial_ and _convert_")
    elif "${" in key or "\0" in key:
        raise ConfigError(f"the key {name} has an interpolation, or a null character")


def _in_space(name: str) -> bool:
    """Whether a key is a part of a Dict space, which an environment may call as it likes."""
    parts = name.split(".")
    return any(one in SPACES and other == "spaces" for one, other in itertools.pairwise(parts))


def _entries(node: Any, path: str) -> Iterator[tuple[Any, str, Any, Any]]:
    """Every key and value of plain values: the node, dotted name, key and value."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        name = f"{path}.{key}" if path else str(key)
        yield node, name, key, value
        yield from _entries(value, name)


def _replaced(node: Any, values: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_replaced(value, values) for value in node]
    return values.get(node, node) if isinstance(node, str) else node
