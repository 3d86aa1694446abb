"""The choices of each config group, wherever Hydra finds configs: conf/, --config-dir, hydra.searchpath, plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from hsw.config.place import conf_folder
from hsw.config.targets import resolve_target
from hsw.errors import ConfigError


def options(group: str) -> list[str]:
    """The names of a group's choices, along Hydra's search path while it runs, else in conf/."""
    if not GlobalHydra.instance().is_initialized():
        return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    found: set[str] = set()
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.available() and source.is_group(group):
            found.update(source.list(group, ObjectType.CONFIG))
    return sorted(found)


def load_choice(group: str, name: str) -> Any:
    """A choice as it stands in its file, its defaults apart; None if there is none."""
    path = f"{group}/{name}"
    if not GlobalHydra.instance().is_initialized():
        file = conf_folder() / f"{path}.yaml"
        return OmegaConf.load(file) if file.is_file() else None
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.available() and source.is_config(path):
            return source.load_config(path).config
    return None


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


def check_choices(choices: Mapping[str, Any], overrides: Iterable[str] = ()) -> None:
    """Refuse a preset that Hydra passes over, because there is none of that name, and one tuned for another agent.

    Args:
        choices: By group, as Hydra made them.
        overrides: Of the command line.

    Raises:
        ConfigError: Naming the presets that there are for this agent.
    """
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
