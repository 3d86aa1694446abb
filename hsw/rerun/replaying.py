"""A run at any of its steps, rebuilt from the checkpoint before it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hsw.agent import Agent
from hsw.agent.video import Recorder, require_imageio
from hsw.append_log import AppendLog
from hsw.errors import ConfigError
from hsw.rerun.again import again, run_until
from hsw.rerun.compare import columns
from hsw.rerun.history import History, Kept, read_history
from hsw.rerun.updates import UpdateRecord, named_parameters
from hsw.run.folder import write_whole
from hsw.run.packed import split

log = logging.getLogger("hsw")
_LONGEST_VIDEO = 10_000  # frames


@dataclass
class Moment:
    """A run at one of its steps.

    Attributes:
        agent: As it was.
        begun: The checkpoint from which it was rebuilt; None is the start.
        asked: The step that was asked for.
        folder: A temporary run folder, in which the agent would go on.
    """

    agent: Agent
    begun: Kept | None
    asked: int
    folder: Path

    def summary(self) -> dict[str, Any]:
        """What there is to say of it, as JSON has it."""
        agent = self.agent
        norms = {name: float(value.detach().norm()) for name, value in named_parameters(agent).items()}
        running = [{"return": one.episode_return, "length": one.length} for one in agent.env.running_episodes()]
        return {
            "step": agent.step,
            "asked": self.asked,
            "where": self.where(),
            "from": str(self.begun) if self.begun else "the start",
            "iteration_start": agent.iteration_start,
            "updates": getattr(agent.algorithm, "num_updates", None),
            "owes_updates": agent.owes_updates,
            "episodes": agent.num_episodes,
            "train_return": sum(agent.episode_returns) / len(agent.episode_returns) if agent.episode_returns else None,
            "running_episodes": running,
            "best_score": agent.best_score,
            "weight_norms": norms,
        }

    def where(self) -> str:
        """Where in the loop the step is."""
        agent = self.agent
        inside = f"within the iteration that began at step {agent.iteration_start:,}"
        place = "between two iterations" if agent.step == agent.iteration_start else inside
        if agent.owes_updates:
            place += ", before the updates that it owes"
        if agent.step != self.asked:
            place += (
                f"; step {self.asked:,} lies within a row of {agent.env.num_envs} environments, and this is its end"
            )
        return place


@contextlib.contextmanager
def moment(
    folder: Path,
    step: int,
    before_update: bool = False,
    allow: Sequence[str] = (),
    device: str | None = None,
    render: bool = False,
) -> Iterator[Moment]:
    """Rebuild a run at a step.

    Args:
        folder: The run's; nothing is written there.
        step: In environment steps. The moment is that at which all that the step is worth has been done, as in a
            checkpoint: updates too, but neither an evaluation nor the next row.
        before_update: The moment at which the step was taken instead, before the updates that follow from it.
        allow: Packages, and places outside of the folder, that the run's config may name.
        device: Where to compute; None takes the run's.
        render: The environments can show frames.

    Yields:
        The moment.

    Raises:
        ConfigError: If there is no run, it has not come so far, or it cannot be rebuilt there.
        CorruptError: If it cannot be read.
    """
    history = read_history(folder, allow, device)
    last = max([history.kept[-1].step, *(row["step"] for _, row in history.rows[-1:])])
    if not 0 <= step <= last:
        raise ConfigError(f"--step {step} must be one of the run's, 0 to {last}")
    begun = _before(history, step, before_update)
    end = next((kept for kept in history.kept if kept.step >= max(step, 1) and kept != begun), None)
    with again(history, begun, history.settings(end or history.kept[-1]), render) as (agent, temporary):
        if not (begun and begun.step == step and not agent.owes_updates):
            run_until(agent, lambda: agent.step >= step and (before_update or not agent.owes_updates))
        yield Moment(agent, begun, step, temporary)


def _before(history: History, step: int, before_update: bool) -> Kept | None:
    """The checkpoint to begin with; None is the start.

    Raises:
        ConfigError: If what follows it would not be what the run did.
    """
    fits = [one for one in history.kept if one.step < step or (one.step == step and not before_update)]
    begun = next((one for one in reversed(fits) if history.readable(one)), None)
    for problem in history.problems:
        log.warning("%s", problem)
    if history.inexact and not (begun and begun.step == step):
        steps = ", ".join(str(one.step) for one in history.kept)
        raise ConfigError(
            f"this run does not go the same way twice: {history.inexact}; --step can be that of a checkpoint: {steps}"
        )
    if begun is None and (why := history.why_not_from_start(history.kept[0])):
        raise ConfigError(f"step {step} comes before the first checkpoint, and the run cannot be begun again: {why}")
    return begun


def save_state(path: Path, state: dict[str, Any]) -> list[str]:
    """Write a state as a checkpoint has it: tensors as safetensors, and the rest as JSON beside it.

    The rows of a replay are among the tensors, as bytes. Returns both paths.

    Raises:
        ResourceError: If the disk does not take it.
    """
    tensors: dict[str, Tensor] = {}
    logs: dict[str, AppendLog] = {}
    plain = split(state, "", tensors, logs)
    for name, log in logs.items():
        tensors |= {f"{name}/rows/{number}": column for number, column in enumerate(columns(log))}
    return [save_tensors(path, tensors), _save_json(path.with_suffix(".json"), plain)]


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors as safetensors. Returns the path."""
    from safetensors.torch import save

    write_whole(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    return str(path)


def _save_json(path: Path, value: Any) -> str:
    write_whole(path, json.dumps(value).encode() + b"\n")
    return str(path)


def record_update(agent: Agent, minibatch: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Let an agent go on to the end of its next update.

    Args:
        agent: Of a moment.
        minibatch: Which of the update's minibatches is kept, from 0.

    Returns:
        The minibatch and the gradients that it gave, before clipping, by name; and a summary: the norms of all steps of
        the update, and of each gradient.

    Raises:
        ConfigError: If there is no such update, or no such minibatch.
    """
    with UpdateRecord(agent, minibatch) as record:
        run_until(agent, lambda: record.finished)
    if not record.finished:
        raise ConfigError(f"no update follows; the run ended at step {agent.step:,}")
    if not record.batch:
        count = record.steps[-1]["minibatch"] + 1 if record.steps else 0
        raise ConfigError(f"--minibatch {minibatch}: the update has {count} minibatches, counted from 0")
    gradients = {f"gradients/{name}": gradient for name, gradient in record.gradients.items()}
    norms = {name: float(gradient.norm()) for name, gradient in record.gradients.items()}
    summary = {"step": agent.step, "minibatch": minibatch, "gradient_norms": norms, "optimizer_steps": record.steps}
    return {**record.batch, **gradients}, summary


def record_video(agent: Agent, path: Path) -> Path:
    """Let an agent go on until its first environment's running episode ends, and film that. Returns the video's path.

    Args:
        agent: Of a moment that can show frames.
        path: An mp4, or a gif where there is no ffmpeg.

    Raises:
        ConfigError: If the environment shows nothing, or imageio is not installed.
    """
    require_imageio("--video")
    recorder, seen = Recorder(), -1

    def filmed() -> bool:
        nonlocal seen
        length = agent.env.running_episodes()[0].length
        if length != seen:
            recorder(agent.env)
        ended, seen = length < seen, length
        return ended or len(recorder.frames) >= _LONGEST_VIDEO

    run_until(agent, filmed)
    return recorder.write(path.with_suffix("") if path.suffix in (".mp4", ".gif") else path)


def refuse_folder(path: Path, folder: Path) -> Path:
    """A path to write to, which must not be in the run folder.

    Raises:
        ConfigError: If it is, or its folder does not exist.
    """
    if path.absolute().parent.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{path} is in the run folder, which a replay leaves as it is; take another place")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} to write {path.name} into")
    return path


def open_prompt(agent: Agent) -> None:
    """A Python prompt with the agent, its environments, its storage and its config in it."""
    import code

    names = {"agent": agent, "envs": agent.env, "storage": agent.storage, "policy": agent.policy, "torch": torch}
    names["config"] = getattr(agent.services, "config", None)
    banner = f"hsw: the run at step {agent.step:,}; there are {', '.join(names)}. Nothing is written into its folder."
    code.interact(banner, local=names, exitmsg="")
