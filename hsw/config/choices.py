"""The choices of each config group, wherever Hydra finds configs: conf/, --config-dir, hydra.searchpath, plugins."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsw.config.hydra_versions import VERSION_BASE
from hsw.config.place import conf_folder
from hsw.config.plugins import installed_plugins
from hsw.config.targets import resolve_target
from hsw.errors import ConfigError

_searched: list[str] = []  # by the run that is composed in this process, beside what Hydra began with


def search_also(paths: Iterable[str]) -> None:
    """Look along hydra.searchpath, too, until it is said anew."""
    _searched[:] = paths


def places_named(arguments: Iterable[str]) -> list[str]:
    """Where a command line says to look, by --config-dir and hydra.searchpath."""
    found: list[str] = []
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(value if equals else following)
        elif name.lstrip("+") == "hydra.searchpath":
            found += re.findall(r"[^\[\],'\"\s]+", value)
    return [place if "://" in place else f"file://{Path(place).absolute()}" for place in found]


def study_mode(arguments: Sequence[str]) -> list[str]:
    """A command line whose study says that it is a sweep, saying so itself: Hydra 1.4 does not look into studies."""
    if any(argument.lstrip("+").startswith("hydra.mode=") for argument in arguments):
        return list(arguments)
    search_also(places_named(arguments))
    for index, argument in enumerate(arguments):
        group, _, study = argument.partition("=")
        if group == "experiments":
            with contextlib.suppress(yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeError):  # Hydra tells
                if OmegaConf.select(load_choice(group, study) or OmegaConf.create(), "hydra.mode") == "MULTIRUN":
                    return [*arguments[: index + 1], "hydra.mode=MULTIRUN", *arguments[index + 1 :]]
    return list(arguments)


def options(group: str) -> list[str]:
    """The names of a group's choices."""
    found = [path.name for folder in _folders() if (place := folder / group).is_dir() for path in place.iterdir()]
    return sorted({name.removesuffix(".yaml") for name in found if name.endswith(".yaml")})


def load_choice(group: str, name: str) -> Any:
    """A choice as it stands in its file, without what its defaults bring; None if there is none."""
    for folder in _folders():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            return _parsed(path.read_text()).copy()
    return None


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    return OmegaConf.create(text)


def _folders() -> list[Any]:
    """The folders, or places of packages, in which Hydra finds configs, in its order."""
    running = HydraConfig.get().searchpath if HydraConfig.initialized() else ()  # of a job in a process of its own
    places = [*_searched, *(running or ())]
    if GlobalHydra.instance().is_initialized():
        sources = GlobalHydra.instance().config_loader().get_sources()
        places = [f"{source.scheme()}://{source.path}" for source in sources if source.provider != "hydra"] + places
    else:
        places = [str(conf_folder()), *(str(plugin.folder) for plugin in installed_plugins()), *places]
    folders: list[Any] = []
    for place in dict.fromkeys(places):
        scheme, colon, path = place.rpartition("://")
        if scheme == "pkg":
            with contextlib.suppress(ImportError):
                folders.append(importlib.resources.files(path.replace("/", ".")))
        elif scheme in ("file", ""):
            folders.append(Path(path if colon else place))
    return folders


def targets_of(group: str, allowed: Iterable[str] = ()) -> dict[str, Any]:
    """The target of every choice of a group that may be named here, for suggestions."""
    found: dict[str, Any] = {}
    for name in options(group):
        target = getattr(load_choice(group, name), "_target_", None)
        try:
            found[name] = resolve_target(target, allowed) if target else None
        except ConfigError:  # of a package that is not trusted, or not installed
            continue
    return {name: target for name, target in found.items() if target}


def compose_choices(overrides: list[str]) -> DictConfig:
    """What a command line composes, along the same search path as the one that runs."""
    if _searched:
        overrides = [*overrides, f"hydra.searchpath=[{','.join(_searched)}]"]
    if GlobalHydra.instance().is_initialized():
        return compose("config", overrides=overrides)
    with initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
        return compose("config", overrides=overrides)


def check_actions(policy: Any, kind: str) -> None:
    """Refuse a policy that declares the kinds of actions it takes, action_types, for an environment that has others.

    Args:
        policy: The target of network.
        kind: Of the environment's actions: Discrete, Box, ...

    Raises:
        ConfigError: Naming the agents that take them.
    """
    if kind in getattr(policy, "action_types", (kind,)):
        return
    fitting = _agents_taking(kind, tuple(options("agent")))
    agents = ", ".join(fitting[:-1]) + " or " * (len(fitting) > 1) + "".join(fitting[-1:])
    wanted = " or ".join(policy.action_types)
    raise ConfigError(
        f"{policy.__name__} takes {wanted} actions, and the environment has {kind} ones"
        + f"; take {agents}" * bool(agents)
    )


@functools.cache
def _agents_taking(kind: str, agents: tuple[str, ...]) -> list[str]:
    found = []
    for agent in agents:
        with contextlib.suppress(Exception):  # an agent of someone's that does not compose by itself
            config = compose_choices([f"agent={agent}"])
            network, storage = (resolve_target(config[group]._target_) for group in ("network", "storage"))
            fits = kind in getattr(network, "action_types", (kind,)) and not getattr(storage, "needs_goals", False)
            found += [f"agent={agent}"] * fits
    return found


def task_overrides(hydra_config: Any) -> list[str]:
    """The overrides of the command line as they were typed: read one by one, their interpolations would resolve."""
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    return [str(override) for override in overrides]


def check_choices(choices: Mapping[str, Any], overrides: Iterable[str] = ()) -> None:
    """Refuse a preset that Hydra passes over, because there is none of that name, and one tuned for another agent; and
    a file of the user's that Hydra passes over, because hsw has one of that name.

    Args:
        choices: By group, as Hydra made them.
        overrides: Of the command line.

    Raises:
        ConfigError: Naming the presets that there are for this agent, or the file.
    """
    _check_shadowed(choices)
    preset, agent, env = (choices.get(group) for group in ("preset", "agent", "env"))
    if not isinstance(preset, str):
        return
    known = options("preset")
    named = any(override.startswith("preset=") for override in overrides) or preset != f"{agent}_{env}"
    if preset not in known and named:
        raise ConfigError(f"there is no preset={preset} (choices: {', '.join(known)})")
    owner = _agent_of(preset)
    if owner not in (None, agent):
        fitting = [name for name in known if _agent_of(name) == agent]
        raise ConfigError(
            f"preset={preset} has values for agent={owner}, and the agent is {agent}; take agent={owner}, or leave "
            f"the preset out with ~preset (for {agent}: {', '.join(fitting) or 'none'})"
        )


def _check_shadowed(choices: Mapping[str, Any]) -> None:
    plugins = {str(plugin.folder) for plugin in installed_plugins()}
    own, *others = (folder for folder in _folders() if str(folder) not in plugins)
    for key, name in choices.items():
        group, choice = key.partition("@")[0], f"{name}.yaml"
        if not (own / group / choice).is_file():
            continue
        for folder in others:
            path = folder / group / choice
            if path.is_file() and path.read_bytes() != (own / group / choice).read_bytes():
                raise ConfigError(f"{group}={name} is hsw's own, and {path} would not be read; give it another name")


def _agent_of(preset: str) -> str | None:
    """The agent that a preset is named after, <agent>_<env>; None of any other name."""
    return max((agent for agent in options("agent") if preset.startswith(f"{agent}_")), key=len, default=None)


def chosen_preset(choices: Mapping[str, Any] | None = None) -> str | None:
    """The preset that was taken; None if there is none, and the values are the general ones.

    Args:
        choices: By group, as Hydra made them; None takes those of the run.
    """
    if choices is None:
        choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    preset = choices.get("preset")
    return preset if isinstance(preset, str) and load_choice("preset", preset) is not None else None


def preset_note(choices: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Where a run's values come from, as part of a sentence for its header.

    Args:
        choices: By group, as Hydra made them.
        config: The composed config.
    """
    preset, agent, env = (choices.get(group) for group in ("preset", "agent", "env"))
    taken = chosen_preset(choices)
    if taken is None:
        near = _same_env(str(env), str(agent), config)
        return "none, general values" + (f"; preset={near} has tuned ones for this environment" if near else "")
    if _agent_of(taken) == agent and not taken.startswith(f"{agent}_{env}"):
        return f"{preset}, made for another environment"
    return taken


def _same_env(env: str, agent: str, config: Mapping[str, Any]) -> str | None:
    """The preset of another choice of env that names the same environment: env=gym env.id=HalfCheetah-v5."""
    place = config["env"].get("id") if isinstance(config.get("env"), Mapping) else None
    for preset in options("preset"):
        other = preset.removeprefix(f"{agent}_")
        if other not in (preset, env) and place and getattr(load_choice("env", other), "id", None) == place:
            return preset
    return None
