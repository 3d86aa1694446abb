"""The config of a run: checked, compared with another run's, read from a folder."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from hsw.config.check import GROUPS, Target, UnknownKeyError, check_config, find_targets
from hsw.config.choices import load_choice, options, targets_of, task_overrides
from hsw.config.compatibility import check_pairs, check_pool, owner
from hsw.config.defaults import fill_in, leave_out
from hsw.config.files import refuse_secrets
from hsw.config.legacy import keep_encoders
from hsw.config.places import check_places
from hsw.config.plain import SPACES, read_stored, settle
from hsw.config.settings import CHANGEABLE, Settings, root_key
from hsw.config.targets import check_env_modules
from hsw.errors import ConfigError, CorruptError
from hsw.ranks import of_environment

_TAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_HINTS = typing.get_type_hints(Settings, include_extras=True)
TARGET_KEYS = tuple(key for key, hint in _HINTS.items() if hint in GROUPS)
ONE_TARGET_KEYS = tuple(key for key, hint in _HINTS.items() if hint == Target)


def check(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check everything that can be checked before anything is built.

    Args:
        config: Composed, or a run's. Numbers such as 1e5 become whole numbers in it where these are expected.

    Returns:
        The plain config, and the target of each group.

    Raises:
        ConfigError: For the first thing that is wrong.
    """
    given, raw = config, OmegaConf.to_container(config, resolve=False)
    _check_files(config)
    config = settle(config)
    with open_dict(config):
        for key in SPACES:  # read from the environment, which is not built yet
            if OmegaConf.is_missing(config, key):
                config[key] = None
    plain: Any = OmegaConf.to_container(config, resolve=True)
    refuse_secrets(f"{path}={value}" for path, value in _leaves(plain))  # those that an interpolation read
    allowed = plain["allow"]  # of the command line, or of whoever composed in Python: see allowed_by
    targets = find_targets(plain, Settings, allowed)
    choices = {group: targets_of(group, allowed) for group in ("network", "storage")}
    check_pairs(targets, choices)  # first: a preset's values for other parts would be called misspelt
    check_pool(targets)
    copies = {path for path, value in _leaves(raw) if isinstance(value, str) and "${" in value}
    try:
        whole = check_config(plain, Settings, targets, allowed, copies)
    except UnknownKeyError as error:
        raise _of_preset(error, plain["preset"]) from error
    for path, value in whole:
        if path not in copies:
            OmegaConf.update(given, path, value)
    if not _TAG.fullmatch(plain["tag"]):
        raise ConfigError("tag must be 1 to 64 letters, digits, dots, dashes and underscores, and not begin with a dot")
    if plain["storage"].get("num_envs", plain["env"]["num_envs"]) != plain["env"]["num_envs"]:
        raise ConfigError(
            f"storage.num_envs={plain['storage']['num_envs']} must be env.num_envs={plain['env']['num_envs']}; "
            "leave it to its interpolation"
        )
    for part in ("agent", "pool"):
        if part in targets and hasattr(owner(targets[part]), "check"):
            owner(targets[part]).check(plain)
    return plain, targets


def allowed_by(config: DictConfig) -> Any:
    """The packages that targets may come from: those of the command line, and none that a YAML names.

    Args:
        config: Composed by Hydra, or made in Python, where its maker is trusted.
    """
    hydra: Any = config.get("hydra") or (HydraConfig.get() if HydraConfig.initialized() else None)
    if hydra is not None and not any(override.lstrip("+").startswith("allow=") for override in task_overrides(hydra)):
        return []
    allowed = config.get("allow")
    return OmegaConf.to_container(allowed) if OmegaConf.is_config(allowed) else allowed


def learners_of(config: DictConfig, overrides: Iterable[str]) -> int:
    """How many learners a run has, which torchrun may have said already.

    Args:
        config: Composed.
        overrides: Of which.

    Raises:
        ConfigError: If torchrun has started another number.
    """
    _, size = of_environment()
    learners = int(config.learners)
    if size == 1 or learners == size:
        return learners
    if learners != 1 or any(override.lstrip("+").startswith("learners=") for override in overrides):
        raise ConfigError(
            f"learners={learners}, and torchrun started {size}; leave learners out, or start torchrun with "
            f"--nproc-per-node {learners}"
        )
    return size


def identity(config: DictConfig) -> dict[str, Any]:
    """What makes a run what it is: values by dotted name, without what a resumed run may change and its copies."""
    config = config.copy()
    with open_dict(config):
        for key in (*CHANGEABLE, *SPACES):
            config[key] = None
    plain: Any = OmegaConf.to_container(config, resolve=True)
    leave_out(plain)
    return {path: value for path, value in _leaves(plain) if path not in (*CHANGEABLE, *SPACES)}


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _check_files(config: DictConfig) -> None:
    """Refuse what is amiss in a YAML itself, before interpolations fail for it.

    Raises:
        ConfigError: If a group has no target, or a file of values came under its group's name.
    """
    for key in map(str, config):
        node = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
            continue
        if key in ONE_TARGET_KEYS and "_target_" not in node and len(node):
            raise ConfigError(
                f"{key} must be a choice of conf/{key}, or a mapping with a _target_; a choice's file needs a line "
                f"such as _target_: my_package.MyClass, or a defaults list that begins with another choice of {key}"
            )
        if key not in TARGET_KEYS and options(key):
            inner = next(map(str, node), "")
            line = "'# @package _global_'"
            raise ConfigError(f"there is no {key}.{inner}; the file of {key}=<choice> needs {line} as its first line")


def _of_preset(error: UnknownKeyError, preset: str | None) -> ConfigError:
    """A key that nobody has typed, where the preset brought it: one tuned for another algorithm, storage or network."""
    values = load_choice("preset", preset) if isinstance(preset, str) else None
    if values is None or OmegaConf.select(values, error.key) is None:
        return error
    group = error.key.partition(".")[0]
    return ConfigError(
        f"there is no {error.key}, which preset={preset} sets for another {group}; ~preset leaves the preset out"
    )


def resumed_config(config: DictConfig, folder: Path) -> DictConfig:
    """The folder's config, with what the command line may change of it.

    Raises:
        ConfigError: If there is no run, or the command line changes what makes the run what it is.
        CorruptError: If the folder's config cannot be read or names what it may not.
    """
    saved = load_config(folder)
    changed = {override.lstrip("+~").split("=")[0] for override in HydraConfig.get().overrides.task}
    groups = {root_key(key) for key in changed}
    refused = sorted(key for key in changed if root_key(key) not in CHANGEABLE)
    if refused:
        raise ConfigError(
            f"a resumed run keeps its {', '.join(refused)}; it may change {', '.join(CHANGEABLE[:-1])}; "
            "start a new run for anything else"
        )
    config = config.copy()
    config.resume = None  # a path, which may have any characters
    config.allow = allowed_by(config)
    pool, config.pool = config.pool, None  # which is for the folder's agent, and is checked with it
    check(config)
    config.pool = pool
    plain: Any = OmegaConf.to_container(saved, resolve=True)
    if "pool" not in groups:
        refuse_address(saved)
    try:
        check_env_modules(plain, config.allow)
        for key in groups:
            saved[key] = config[key]
        saved.allow = config.allow
        saved = settle(saved)  # what the command line changes may hold interpolations
        checked, _ = check(saved)
        check_places({key: checked[key] for key in checked if key not in groups}, config.allow, folder)
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    return saved


def refuse_address(saved: DictConfig) -> None:
    """Refuse to connect where only a run folder says to: whoever answers there would be trusted with this process.

    Raises:
        ConfigError: If its pool has an address that is not of this machine's choosing.
    """
    address = (saved.get("pool") or {}).get("address", "auto")
    if address not in ("auto", "local"):
        raise ConfigError(
            f"the run had its actors at pool.address={address}, and a resume connects to no address that a run folder "
            f"names; say so again with pool=ray pool.address={address}, or take pool=processes"
        )


def load_config(folder: Path) -> DictConfig:
    """Read the config that a run saved; keys that its version did not have say what it did without them.

    Raises:
        ConfigError: If there is no run in the folder.
        CorruptError: If its config cannot be read.
    """
    loaded = OmegaConf.create(read_stored(folder))
    assert isinstance(loaded, DictConfig)
    try:
        plain: Any = OmegaConf.to_container(loaded, resolve=False)
        fill_in(plain)
        filled = OmegaConf.create(plain)
        keep_encoders(filled)
    except Exception as error:  # what is there may have any form
        raise CorruptError(f"{folder / 'config.yaml'} cannot be read: {type(error).__name__}") from error
    assert isinstance(filled, DictConfig)
    return filled
