"""The facts of a run for its header and its last lines, read from the agent and its config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsw.config.places import words_to_allow
from hsw.output import one_line
from hsw.run.header import commands
from hsw.run.progress import format_scores, format_seconds
from hsw.spaces import SpaceSpec, read_space


def facts_of(agent: Any, config: Mapping[str, Any], folder: Path, preset: str) -> dict[str, str]:
    """What a person wants to see confirmed before a run begins, by name.

    Args:
        agent: Ready to train.
        config: The resolved config, plain.
        folder: The run's.
        preset: Whose values the run took; empty if that is not known.
    """
    env = config["env"]
    actors, ranks = getattr(agent, "num_actors", None), agent.ranks.size
    count = f" × {env.get('num_envs', 1)}" + (f" in each of {_count(actors, 'actor')}" if actors else "")
    count += f" × {_count(ranks, 'rank')}" if ranks > 1 else ""
    obs, action = (space_name(read_space(space)) for space in (agent.env.observation_space, agent.env.action_space))
    size = sum(parameter.numel() for parameter in agent.policy.parameters())
    every, episodes = config["eval_interval"], config["eval_episodes"]
    when = f"every {every:,} steps and at the end" if every else "at the end"
    done = f"{agent.step:,} of " if agent.step else ""
    return {
        "agent": " · ".join(
            map(_name, (config["algorithm"], *(config[part] for part in ("agent", "storage", "network"))))
        ),
        "environment": f"{env_name(env)}{count} · actions {action} · obs {obs}",
        "preset": preset,
        "encoder": _encoders(agent.policy),
        "parameters": f"{size:,}",
        "device": f"{agent.device} · {_count(config['threads'], 'thread')} · seed {config['seed']}",
        "budget": f"{done}{config['num_train_steps']:,} steps · evaluation of {_count(episodes, 'episode')} {when}",
        "folder": str(folder),
    }


def last_lines(
    scores: Mapping[str, Any] | None, step: int, seconds: float, folder: Path, program: str, allow: list[str]
) -> str:
    """What a person wants to know once a run is done: its score, where it is, and what to type next.

    Args:
        scores: Of the last evaluation; None where there was none.
        step: At which it ended.
        seconds: That it took, over all its sessions.
        folder, program, allow: As in hsw.run.header.commands.
    """
    took = f"{step:,} steps in {format_seconds(seconds)}"
    outcome = f"{format_scores(scores)} over {_count(len(scores['returns']), 'episode')}, {took}" if scores else took
    typed = commands(folder, program, allow)
    lines = {"done": outcome, "folder": str(folder), **typed, "resume": f"{typed['resume']} num_train_steps={2 * step}"}
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())


def done_line(config: DictConfig, folder: Path, step: int, program: str) -> str:
    """What a person is told who resumes a run that is done: so much, and how it goes on.

    Args:
        config: The run's, checked.
        folder, program: As in hsw.run.header.commands.
        step: At which it ended.
    """
    plain: Any = OmegaConf.to_container(config)
    again = commands(folder, program, words_to_allow(plain, config.allow, folder))["resume"]
    asked = f"{step:,} steps of {config.num_train_steps:,} that were asked for"
    return (
        f"{one_line(str(folder))} is done: {asked}; go on with a larger budget: {again} num_train_steps="
        f"{2 * max(step, 1)}"
    )


def env_name(env: Mapping[str, Any]) -> str:
    """What an env config is about: its id without the module that registers it, or its game, or its target's name."""
    return str(env.get("id") or env.get("game") or _name(env)).rpartition(":")[2]


def _name(node: Mapping[str, Any]) -> str:
    """A target's own name: DecoupledRolloutStorage of hsw.storage.DecoupledRolloutStorage.create_factory."""
    words = str(node["_target_"]).split(".")
    return next((word for word in reversed(words) if word[:1].isupper()), words[-1])


def _encoders(policy: Any) -> str:
    """Which encoder reads which part of the observation."""
    tell = getattr(policy, "encoder_names", None)  # a policy from outside may not say
    children = {name: type(child).__name__ for name, child in policy.named_children() if "encoder" in name}
    names: dict[str, str] = tell() if tell else children
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{part}: {name}" for part, name in names.items())


def space_name(spec: SpaceSpec) -> str:
    """A space in a few characters: Box[3, 84, 84] uint8, Discrete(2), {goal: Box[10], observation: Box[10]}."""
    if spec.type == "Dict":
        return f"{{{', '.join(f'{name}: {space_name(part)}' for name, part in spec.spaces.items())}}}"
    if spec.type == "Box":
        return f"Box{list(spec.shape)}" + (f" {spec.dtype}" if spec.dtype != "float32" else "")
    return f"{spec.type}({', '.join(map(str, spec.nvec or spec.shape))})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
