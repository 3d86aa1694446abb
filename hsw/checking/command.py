"""What a command line asks to be checked, and the configs that it stands for."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import re
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import yaml
from omegaconf import DictConfig

from hsw.api import compose
from hsw.checking.agents import check_agent
from hsw.checking.environment import check_environment
from hsw.checking.findings import Report
from hsw.config.choices import places_named
from hsw.errors import ConfigError
from hsw.signatures import signature_of

# Groups whose choices are an agent's parts.
_PARTS = ("agent", "algorithm", "storage", "network", "intrinsic_reward", "augmentation")
_WORD = re.compile(r"[\w.]+")


def check_all(
    targets: Sequence[str], config_dir: str | None = None, allow: Sequence[str] = (), only: Collection[str] = ()
) -> Report:
    """Check what a command line names: environments, parts of an agent, or both.

    Args:
        targets: Overrides; or one id of an environment, or the dotted name of a class, and overrides.
        config_dir: A folder of further choices.
        allow: Packages to trust.
        only: The checks of parts to make, by name; none for all.

    Raises:
        ConfigError: If it cannot work.
    """
    torch.set_num_threads(1)  # every check is a process that begins as this one
    allowed = list(allow)
    with tempfile.TemporaryDirectory(prefix="hsw-check-") as folder, _silence():
        overrides: list[str] = []
        for target in targets:
            overrides += (
                [target] if "=" in target or target.startswith("~") else _of_target(target, Path(folder), allowed)
            )
        return _checked(overrides, config_dir, allowed, Path(folder), only)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What the checked parts' own runs log and warn of is not what was asked for."""
    log = logging.getLogger("hsw")
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _checked(
    overrides: list[str], config_dir: str | None, allow: list[str], folder: Path, only: Collection[str]
) -> Report:
    keys = {override.lstrip("+~").split("=")[0] for override in overrides}
    groups = {key.split(".")[0].split("@")[0] for key in keys}
    if not groups & {"env", *_PARTS}:
        raise ConfigError("name what is to be checked: env=..., env.id=..., algorithm=..., agent=..., or a class")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"there is no folder {config_dir} to take choices from")
    places = [*places_named(overrides), *([f"file://{Path(config_dir).absolute()}"] if config_dir else [])]
    places += [f"file://{folder}"] if any(folder.iterdir()) else []
    own = [override for override in overrides if not override.startswith(("hydra.searchpath=", "allow="))]
    allowed = [*allow, *(name for said in overrides if said.startswith("allow=") for name in _WORD.findall(said[6:]))]
    own += [f"allow=[{','.join(dict.fromkeys(allowed))}]"] if allowed else []
    own += [f"hydra.searchpath=[{','.join(map(repr, places))}]"] if places else []

    def composed(*more: str) -> DictConfig:
        """The config of the command line, and of what it leaves open."""
        return compose([*(one for one in more if one.split("=")[0] not in keys), *own])

    report = Report()
    if "env" in groups:
        bare = ["~preset"] if not groups & {*_PARTS, "preset"} else []
        report.merge(check_environment(composed(*(["env=gym"] if "env.id" in keys else []), *bare)))
    if groups & {*_PARTS}:
        report.merge(check_agent(composed, keys, only))
    return report


def _of_target(target: str, folder: Path, allow: list[str]) -> list[str]:
    """The overrides that choose what a single word names.

    Raises:
        ConfigError: If there is no such environment or class.
    """
    if ":" in target or re.search(r"-v\d+$", target) or target in gym.registry:
        return [f"env.id={target}"]
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        told = f"{target} is no override (key=value), no id of an environment, and no class"
        raise ConfigError(f"{told}: {error}") from error
    if inspect.isclass(found) and issubclass(found, gym.Env):
        return [f"env.id={_registered(found, name)}"]
    group = _group_of(found)
    if group is None:
        raise ConfigError(f"{target} is neither an environment nor an algorithm, a storage or a policy")
    allow.append(module.split(".")[0])
    path = folder / group / "checked.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"_target_": target, **_arguments(found, group)}))
    return [f"{group}=checked"]


def _registered(env: type, name: str) -> str:
    """The id of an environment's class, registered for the length of this command."""
    for known, spec in gym.registry.items():
        if spec.entry_point in (f"{env.__module__}:{env.__qualname__}", env):
            return known
    gym.register(f"{name}-v0", f"{env.__module__}:{env.__qualname__}")
    return f"{name}-v0"


def _group_of(found: Any) -> str | None:
    if not inspect.isclass(found):
        return None
    if issubclass(found, torch.nn.Module):
        return "network" if hasattr(found, "act") else None
    if hasattr(found, "generate_batches"):
        return "storage"
    return "algorithm" if hasattr(found, "update") else None


def _arguments(part: type, group: str) -> dict[str, Any]:
    """What a YAML of the class says: every argument that has a plain value."""
    given = dict.fromkeys(signature_of(part).hints)
    defaults: dict[str, Any] = {}
    for owner in reversed(part.__mro__):
        if "__init__" in vars(owner) and owner is not object:
            for name, parameter in inspect.signature(vars(owner)["__init__"]).parameters.items():
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    linked = {"observation_space", "action_space", "device"}
    values: dict[str, Any] = {name: f"${{{name}}}" for name in given if name in linked}
    if "num_envs" in given:
        values["num_envs"] = "${env.num_envs}"
    plain = (int, float, str, bool, type(None))
    for name in given:
        if name not in values and name in defaults and isinstance(defaults[name], plain):
            values[name] = defaults[name]
        elif name not in values and name in defaults and isinstance(defaults[name], list | tuple):
            values[name] = list(defaults[name])
    if group == "algorithm" and "discount" in given:
        values["discount"] = "${storage.discount}"
    return values
