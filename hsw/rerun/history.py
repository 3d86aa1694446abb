"""What a run folder tells of how it came about: config, kept checkpoints, rows, sessions."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from hsw.build import SESSION, build_agent
from hsw.config.places import check_places
from hsw.config.plugins import only_trusted
from hsw.config.resolved import check, load_config
from hsw.config.targets import check_env_modules
from hsw.directory import Directory, lines_of
from hsw.errors import ConfigError, CorruptError
from hsw.run.checkpoint import list_checkpoints, read_meta, read_state
from hsw.run.folder import UnownedFolder
from hsw.run.identity import run_id_of
from hsw.run.provenance import read_sessions
from hsw.run.services import Run


@dataclass(frozen=True)
class Kept:
    """A checkpoint that was kept."""

    path: Path
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.meta.get("step", 0))

    @property
    def session(self) -> int:
        session = self.meta.get("session", 1)
        return session if type(session) is int else 1

    def __str__(self) -> str:
        return f"checkpoint {self.path.name} (step {self.step:,})"


@dataclass
class History:
    """A run folder, read and checked as a resume would.

    Attributes:
        folder: The run's.
        config: Checked; without loggers, which a rerun must not write to again.
        kept: Its checkpoints, oldest first, those left out that cannot be read.
        rows: Of metrics.jsonl, with their line numbers.
        problems: What is wrong with its files, a sentence each.
        inexact: Why the run does not go the same way twice; None if it does.
    """

    folder: Path
    config: DictConfig
    kept: list[Kept]
    rows: list[tuple[int, dict[str, Any]]]
    problems: list[str] = field(default_factory=list)
    inexact: str | None = None

    def settings(self, end: Kept | None) -> dict[str, Any]:
        """The budget, intervals and threads under which the run came to a checkpoint, as far as it tells."""
        told = end.meta.get("settings") if end else None
        told = told if isinstance(told, dict) else {}
        own = {key: self.config[key] for key in SESSION}
        for key in ("num_train_steps", "checkpoint_interval", "threads"):
            value = told.get(key)
            own[key] = value if type(value) is int and 1 <= value < 2**62 else own[key]
        return own

    def why_not_from_start(self, first: Kept) -> str | None:
        """Why what led to a run's first checkpoint cannot be run again; None if it can."""
        source = self.config.get("init_from")
        if source and source not in self.config.allow:
            return f"it began with the weights of {source}, which is not in the folder; --allow {source} takes them"
        if first.session == 1:
            return None
        sessions = [one.get("settings") for one in read_sessions(self.folder)][: first.session]
        if len(sessions) == first.session and all(one and one == sessions[0] for one in sessions):
            return None  # it was stopped and resumed, and went on as if it had not been
        return (
            f"it was stopped and resumed before {first} (session {first.session}), and earlier sessions had another "
            "budget, or do not say which; their checkpoints are gone (checkpoint_keep keeps more)"
        )

    def readable(self, kept: Kept) -> dict[str, Any] | None:
        """A checkpoint's state; one that cannot be read is left out from then on, and that is a problem."""
        try:
            return read_state(kept.path)[0]
        except CorruptError as error:
            self.problems.append(str(error))
            self.kept.remove(kept)
            return None


def read_history(folder: Path, allow: Sequence[str] = (), device: str | None = None) -> History:
    """Read a run folder; its config is checked first, and nothing in it is executed.

    Args:
        folder: The run's.
        allow: Packages, and places outside of the folder, that the run's config may name.
        device: Where to compute; None takes the run's.

    Raises:
        ConfigError: If there is no run.
        CorruptError: If its config cannot be read or names what it may not, or none of its checkpoints can be read.
    """
    config = load_config(folder)
    config.allow = list(allow)
    with open_dict(config):
        config.logger, config.quiet, config.pool = {}, True, None
        config.device = device or config.device
    try:
        plain, _ = check(config)
        check_env_modules(plain, config.allow)
        check_places(plain, config.allow, folder)
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    run_id_of(folder)
    rows, problems = read_rows(folder)
    kept = []
    for number in list_checkpoints(folder / "checkpoints"):
        path = folder / "checkpoints" / f"{number:06d}"
        try:
            kept.append(Kept(path, read_meta(path)))
        except CorruptError as error:
            problems.append(str(error))
    history = History(folder, config, kept, rows, problems)
    history.inexact = _why_inexact(history)
    return history


def _why_inexact(history: History) -> str | None:
    """Build the run once, with its newest checkpoint that can be read, and ask its parts."""
    config = history.config
    if config.learners > 1:
        return f"{config.learners} learners trained together, and here is one"
    while history.kept:
        newest = history.kept[-1]
        if state := history.readable(newest):
            break
    else:
        detail = f": {history.problems[-1]}" if history.problems else ""
        raise CorruptError(f"no checkpoint in {history.folder / 'checkpoints'} can be read{detail}")
    folder = UnownedFolder(history.folder)
    run = Run(folder)
    run.restored_from, run.restored_older = newest.meta.get("built_from"), "built_from" not in newest.meta
    with only_trusted(history.config), contextlib.closing(folder):
        agent = build_agent(config.copy(), run, state)
        why, exact = type(agent).inexact, agent.env.exact
        agent.env.close()
    return why or (None if exact else "its environments cannot be restored, and begin fresh episodes")


def read_rows(folder: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """The rows of metrics.jsonl with their line numbers, and what is wrong with it."""
    rows: list[tuple[int, dict[str, Any]]] = []
    problems, before = [], 0
    try:
        with Directory.open(folder) as directory:
            descriptor = directory.open_file("metrics.jsonl", os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            for number, line in enumerate(lines_of(file), 1):
                try:
                    row = json.loads(line)
                    step = row["step"]
                    if type(step) is not int or not 0 <= step < 2**62:
                        raise ValueError
                except (ValueError, TypeError, KeyError, RecursionError):
                    if line.endswith(b"\n"):  # the last line of a run that was killed may be torn
                        problems.append(f"line {number} of metrics.jsonl is not a row of metrics")
                    continue
                if step < before:
                    problems.append(f"line {number} of metrics.jsonl is of step {step}, after one of step {before}")
                before = max(before, step)
                rows.append((number, row))
    except (OSError, ValueError) as error:
        problems.append(f"metrics.jsonl cannot be read: {getattr(error, 'strerror', None) or error}")
    return rows, problems
