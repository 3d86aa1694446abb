"""Where a run's config came from: its choices and overrides, kept beside it, and run again with changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hsw.config.arguments import key_of, prepare
from hsw.config.choices import task_overrides
from hsw.config.places import check_places
from hsw.config.plain import settle
from hsw.config.settings import root_key
from hsw.config.targets import check_env_modules
from hsw.directory import read_file
from hsw.errors import ConfigError, CorruptError
from hsw.run.paste import unquoted

if TYPE_CHECKING:
    from hsw.run.folder import RunFolder

NAME = "choices.json"
_LARGEST = 2**22  # bytes
ORIGIN = "HSW_FROM"  # the variable of the environment that names the folder whose config runs again
_TYPED = "HSW_FROM_TYPED"  # and of what was typed beside it, as JSON
_NOT_KEPT = ("hydra", "resume", "from", "allow")


def write_origin(folder: RunFolder, hydra_config: Any) -> None:
    """Keep the overrides of the command line, and the choice of each group.

    Raises:
        ResourceError: If the disk does not take it.
    """
    overrides = [override for override in task_overrides(hydra_config) if _root(override) not in _NOT_KEPT]
    choices = {group: choice for group, choice in hydra_config.runtime.choices.items() if "hydra/" not in group}
    folder.write_text(NAME, json.dumps({"overrides": overrides, "choices": choices}, indent=1) + "\n")


def take_origin(arguments: Sequence[str]) -> list[str]:
    """Prepared arguments, with what from=<run folder> among them stands for.

    Raises:
        ConfigError: As again, or if a run is resumed too.
        CorruptError: As again.
    """
    for variable in (ORIGIN, _TYPED):
        os.environ.pop(variable, None)
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("from=")]
    if not folders:
        return list(arguments)
    rest = [argument for argument in arguments if not argument.startswith("from=")]
    if len(folders) > 1 or any(argument.startswith("resume=") for argument in rest):
        raise ConfigError("from=<run folder> makes a new run of one run's config; leave resume and further ones out")
    os.environ[ORIGIN] = folders[0]
    flags = [argument for argument in rest if argument.startswith("-")]
    os.environ[_TYPED] = json.dumps([argument for argument in rest if argument not in flags])
    single = [] if {"-m", "--multirun"} & {*flags} else ["hydra.mode=RUN"]  # also of a study's job
    return [*flags, *again(Path(folders[0]), [argument for argument in rest if argument not in flags]), *single]


def again(folder: Path, changes: Sequence[str]) -> list[str]:
    """The overrides that compose a run's config once more, with changes.

    Args:
        folder: Of the run, which is data: no interpolation, no flag and nothing of Hydra's is taken from it.
        changes: New overrides; one replaces the folder's of the same key.

    Raises:
        ConfigError: If there is no run in the folder, or it does not tell what it was composed from.
        CorruptError: If what it tells cannot be read, or is what a folder may not say.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"there is no run in {folder}: it has no config.yaml")
    stored = _stored(folder)
    new = {key_of(change) for change in changes}
    kept = [o for o in stored if key_of(o) not in new and not (_root(o) == "logger" and "logger" in new)]
    return [*kept, *changes]


def check_origin(config: DictConfig) -> None:
    """Refuse an environment's module, and a place to write or send to, that a folder names and the command line does
    not trust.

    Raises:
        ConfigError: If the config came from a folder and names one.
    """
    if ORIGIN not in os.environ:
        return
    check_env_modules({"env": {"_target_": "", "id": config.env.get("id", "")}}, config.allow)
    typed: dict[str, str] = {key_of(word): unquoted(word.partition("=")[2]) for word in json.loads(os.environ[_TYPED])}
    plain: Any = settle(config)
    groups = {key: OmegaConf.to_container(plain[key]) for key in ("logger", "callbacks") if key not in typed}
    check_places(groups, list(config.allow), typed=typed.values())


def changes_since(stored: DictConfig, config: DictConfig) -> str:
    """What a run has otherwise than the one whose config it takes, value by value: seed: 1 -> 7."""
    # A folder's values are as they stand: what it says resolves to nothing of this machine's.
    before, after, nothing = _values(stored, resolve=False), _values(config, resolve=True), object()
    names = sorted({*before, *after}, key=lambda name: (name.count("."), name))
    changed = [name for name in names if before.get(name, nothing) != after.get(name, nothing)]
    lines = [f"{name}: {before.get(name, '-')} -> {after.get(name, '-')}" for name in changed]
    return f"the config of {os.environ[ORIGIN]}, " + (f"changed in {'; '.join(lines)}" if lines else "unchanged")


def _values(config: DictConfig, resolve: bool) -> dict[str, Any]:
    """The values of a config by dotted name, without those that say where it ran, or that its environment gives."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key in ("observation_space", "action_space", "resume", "allow"):
        plain[key] = None
    plain = OmegaConf.to_container(OmegaConf.create(plain), resolve=resolve)
    return dict(_leaves(plain))


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = dict(enumerate(node)) if isinstance(node, list) else node
    if not isinstance(inner, dict) or not inner:
        yield path, node
        return
    for key, value in inner.items():
        if key not in ("observation_space", "action_space"):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _stored(folder: Path) -> list[str]:
    path = folder / NAME
    if not os.path.lexists(path):
        return _of_command(folder)
    try:
        overrides = json.loads(read_file(folder, NAME, _LARGEST))["overrides"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError(f"{path} cannot be read: {type(error).__name__}") from error
    if not isinstance(overrides, list) or not all(isinstance(override, str) for override in overrides):
        raise CorruptError(f"{path} has no list of overrides")
    for override in overrides:
        if "${" in override or override.startswith("-") or _root(override) in _NOT_KEPT:
            raise CorruptError(
                f"{path} has the override {override!r}, and a run folder may say no flag, no interpolation and nothing "
                f"of {', '.join(_NOT_KEPT)}; delete it there, and give it on the command line if it is yours"
            )
    return overrides


def _of_command(folder: Path) -> list[str]:
    """What a run of 0.1.0, which kept its command only, was composed from."""
    unknown = f"{folder} does not tell what its config was composed from"
    try:
        command = json.loads(read_file(folder, "versions.json", _LARGEST))["command"]
        arguments = prepare([str(word) for word in command[1:]])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{unknown}: it has no {NAME}, and no command in versions.json") from error
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    roots = {_root(override) for override in overrides}
    if {"resume", "from"} & roots:
        raise ConfigError(f"{unknown}: it was resumed, and only the last command was kept; compose it anew")
    if {"--multirun", "-m"} & {*arguments} or "experiments" in roots:
        raise ConfigError(f"{unknown}: it was a job of a sweep, which kept the sweep's command; compose it anew")
    kept = [override for override in overrides if _root(override) not in _NOT_KEPT]
    if any("${" in override for override in kept):
        raise ConfigError(f"{unknown}: its command has an interpolation, which no run folder may; compose it anew")
    return kept


def _root(override: str) -> str:
    return root_key(override).partition("/")[0]
