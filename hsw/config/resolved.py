"""The config of a run: checked, compared with another run's, read from a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hsw.config.check import check_config, find_targets
from hsw.config.compatibility import check_pairs, owner
from hsw.config.files import conf_folder, refuse_secrets
from hsw.config.legacy import keep_encoders
from hsw.config.settings import CHANGEABLE, Settings, root_key
from hsw.config.targets import check_env_modules, resolve_target
from hsw.errors import ConfigError, CorruptError

_TAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
SPACES = ("observation_space", "action_space")


def check(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check everything that can be checked before anything is built.

    Returns:
        The plain config, and the target of each group.

    Raises:
        ConfigError: For the first thing that is wrong.
    """
    config = config.copy()
    with open_dict(config):
        for key in SPACES:  # read from the environment, which is not built yet
            if OmegaConf.is_missing(config, key):
                config[key] = None
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    refuse_secrets(f"{path}={value}" for path, value in _leaves(plain))  # those that an interpolation read
    allowed = plain.get("allow", ())
    targets = find_targets(plain, Settings, allowed)
    check_pairs(targets, _choices())  # first: a preset's values for other parts would be called misspelt
    check_config(plain, Settings, targets, allowed)
    if not _TAG.fullmatch(plain["tag"]):
        raise ConfigError("tag must be 1 to 64 letters, digits, dots, dashes and underscores, and not begin with a dot")
    if plain["storage"].get("num_envs", plain["env"]["num_envs"]) != plain["env"]["num_envs"]:
        raise ConfigError(
            f"storage.num_envs={plain['storage']['num_envs']} must be env.num_envs={plain['env']['num_envs']}; "
            "leave it to its interpolation"
        )
    owner(targets["agent"]).check(plain)
    return plain, targets


def identity(config: DictConfig) -> dict[str, Any]:
    """What makes a run what it is: values by dotted name, without what a resumed run may change and its copies."""
    config = config.copy()
    with open_dict(config):
        for key in (*CHANGEABLE, *SPACES):
            config[key] = None
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if plain.get("init_from") is None:  # as for a version that did not have it
        plain.pop("init_from", None)
    return {path: value for path, value in _leaves(plain) if path not in (*CHANGEABLE, *SPACES)}


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _choices() -> dict[str, dict[str, Any]]:
    """The target of every choice of network and storage in conf/."""
    found: dict[str, dict[str, Any]] = {}
    for group in ("network", "storage"):
        found[group] = {}
        for path in sorted(Path(conf_folder(), group).glob("*.yaml")):
            node: Any = OmegaConf.load(path)
            if "_target_" in node:
                found[group][path.stem] = resolve_target(node._target_)
    return found


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
    check(config)
    plain: Any = OmegaConf.to_container(saved, resolve=True)
    try:
        check_env_modules(plain, config.allow)
        for key in groups:
            saved[key] = config[key]
        saved.allow = config.allow
        check(saved)
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    return saved


def load_config(folder: Path) -> DictConfig:
    """Read the config that a run saved.

    Raises:
        ConfigError: If there is no run in the folder.
        CorruptError: If its config cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"there is no run in {folder}: it has no config.yaml")
    try:
        loaded = OmegaConf.load(path)
        assert isinstance(loaded, DictConfig)
        keep_encoders(loaded)
        if "init_from" not in loaded:  # of a version that had none
            loaded.init_from = None
        return loaded
    except Exception as error:  # YAML's, OmegaConf's and Unicode's errors have no common base
        raise CorruptError(f"{path} cannot be read: {type(error).__name__}") from error
