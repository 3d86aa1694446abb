"""A run once more, from its start or from a checkpoint, to any moment, in a folder that is thrown away."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf, open_dict

from hsw.agent import Agent
from hsw.build import build_agent
from hsw.config.plugins import only_trusted
from hsw.errors import Interrupted
from hsw.rerun.history import History, Kept
from hsw.run.folder import RunFolder
from hsw.run.services import Run
from hsw.run.signals import StopSignals


class StopAt(StopSignals):
    """Asks a loop to stop where a condition holds, as a signal does that comes at that moment.

    Loops ask between rows and between the batches of an update. What a stop there saves is what a stopped run saves.

    Args:
        here: The condition.
    """

    def __init__(self, here: Callable[[], bool]) -> None:
        self._here, self.reached = here, False
        self._told: int | None = None
        super().__init__()

    @property
    def requested(self) -> int | None:
        if self._told is None and not self.reached:
            self.reached = self._here()
        return signal.SIGTERM if self.reached and self._told is None else self._told

    @requested.setter
    def requested(self, signum: int | None) -> None:
        self._told = signum


@contextlib.contextmanager
def again(
    history: History, start: Kept | None, settings: dict[str, Any], render: bool = False
) -> Iterator[tuple[Agent, Path]]:
    """Build a run as it was at a checkpoint, or before its first step.

    Args:
        history: Of the run.
        start: The checkpoint; None begins from the config and its seed.
        settings: As History.settings tells.
        render: The environments can show frames.

    Yields:
        The agent, and the temporary run folder in which it writes what a run writes.

    Raises:
        HswError: What a resume would end with.
    """
    config = history.config.copy()
    with open_dict(config):
        for key, value in settings.items():
            config[key] = value
        if render:
            config.env.render_mode = "rgb_array"
            if config.env.get("backend") == "async":
                config.env.backend = "sync"
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="hsw-rerun-") as temporary, only_trusted(history.config):
        folder = RunFolder(Path(temporary))
        try:
            run = Run(folder, checkpoint_interval=config.checkpoint_interval, checkpoint_keep=1)
            agent = build_agent(config, run, run.load(start.path) if start else None)
            run.agent, run.config = agent, cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
            try:
                yield agent, folder.path
            finally:
                agent.env.abandon()
        finally:
            folder.close()


def run_until(agent: Agent, here: Callable[[], bool]) -> bool:
    """Train until a condition holds.

    Args:
        agent: Of again.
        here: Asked between rows and between the batches of an update.

    Returns:
        Whether it came there; if not, the run came to its end.

    Raises:
        Interrupted: If a signal came.
        HswError: What ended the training.
    """
    stop = agent.services.signals = StopAt(here)
    try:
        agent.train()
    except Interrupted:
        if not stop.reached:
            raise
    finally:
        agent.services.signals = StopSignals()
    return stop.reached


def place_of(state: dict[str, Any]) -> tuple[Any, ...]:
    """What tells two moments of a run from each other."""
    env = state["env"] if isinstance(state.get("env"), dict) else {}
    arrays = [env.get(key) for key in ("dones", "lengths", "episode_numbers")]
    told = [array.tolist() if isinstance(array, torch.Tensor) else array for array in arrays]
    flags = state.get("prepared") is not None, state.get("updates")
    return (*(state.get(key) for key in ("step", "iteration_start", "last_eval")), *flags, *told)
