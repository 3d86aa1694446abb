"""Runs for tests: the command in this process or in another, tiny agents, and what a run left behind."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from hsw import train
from hsw.agent import Agent
from hsw.append_log import AppendLog
from hsw.build import build_agent, build_loggers
from hsw.config.files import conf_folder
from hsw.config.hydra_versions import VERSION_BASE
from hsw.config.resolved import check
from hsw.errors import Interrupted
from hsw.run.checkpoint import load_newest
from hsw.run.folder import RunFolder
from hsw.run.services import Run
from tests.warm import Forked, can_fork

ROOT = Path(__file__).resolve().parents[1]
COMMON = ("env.num_envs=2", "num_train_steps=128", "eval_episodes=2", "device=cpu", "threads=1", "quiet=true")
TINY = (*COMMON, "storage.num_steps=16", "algorithm.num_mini_batch=2", "algorithm.num_epochs=2")
TINY_REPLAY = (
    *COMMON,
    "storage.storage_size=80",
    "storage.batch_size=16",
    "network.hidden_sizes=[8,8]",
    "agent.num_warmup_steps=16",
    "agent.log_interval=16",
)
REPLAY_RECIPES = ("sac", "her_sac", "td3", "dqn", "her_dqn")
TINY_IMPALA = (
    *COMMON,
    "storage.num_steps=8",
    "storage.num_storages=12",
    "storage.batch_size=4",
    "network.hidden_sizes=[8,8]",
    "agent.log_interval=32",
)
# An environment of the tests for each recipe.
CONTINUOUS = ("env.id=tests.envs:Noise-v0", "+env.kwargs.continuous=true")
GOALS = ("env.id=tests.envs:Homing-v0",)
ENVS = {
    "ppo": ("env=cartpole",),
    "daac": ("env=cartpole",),
    "sac": CONTINUOUS,
    "her_sac": GOALS,
    "td3": CONTINUOUS,
    "dqn": ("env=cartpole",),
    "her_dqn": ("env=bit_flipping", "env.kwargs.continuous=false"),
    "a2c": ("env=cartpole",),
    "recurrent_ppo": ("env=cartpole_positions",),
    "ppo_rnd": ("env=deep_sea",),
    "impala": ("env=catch",),
}


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it said to a person: the first line on stderr, if that is hsw's own."""
        first = self.err.strip().partition("\n")[0]
        return first if first.startswith("hsw: ") else ""

    def refused(self, code: int, *words: str) -> bool:
        """Whether it ended with this code and one sentence that has these words, and no traceback."""
        told = self.sentence and all(word in self.sentence for word in words)
        assert self.code == code, f"code {self.code} instead of {code}: {self.err}"
        assert told, f"stderr does not begin with a sentence that has {words}: {self.err}"
        assert "Traceback" not in self.err, self.err
        return True


_HYDRA = importlib.import_module("hydra._internal.hydra").Hydra
_find_mode = _HYDRA.get_mode


def _mode_of(self: Any, config_name: str | None, overrides: list[str], *rest: Any, **options: Any) -> Any:
    """Hydra composes a whole config to find out whether it is a sweep, which only a study or hydra.mode can say."""
    telling = any(one.lstrip("+").startswith(("experiments=", "hydra.mode=")) for one in overrides)
    return _find_mode(self, config_name, overrides, *rest, **options) if telling else None


def call(*arguments: str, main: Callable[[], None] = train.cli) -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    root, argv, environ = logging.getLogger(), sys.argv, dict(os.environ)
    handlers, level, code = list(root.handlers), root.level, 0
    GlobalHydra.instance().clear()
    sys.argv = ["hsw-train", *arguments]
    try:
        composed_once = mock.patch.object(_HYDRA, "get_mode", _mode_of)  # half the time of a command that is refused
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), composed_once:
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        GlobalHydra.instance().clear()
        logging.captureWarnings(False)
        sys.argv, root.handlers, root.level = argv, handlers, level
        os.environ.clear()
        os.environ.update(environ)
    return Result(code, out.getvalue(), err.getvalue())


def tiny(recipe: str) -> tuple[str, ...]:
    """A command line that trains a recipe for a moment, on any environment that suits it."""
    small = TINY_IMPALA if recipe == "impala" else TINY_REPLAY if recipe in REPLAY_RECIPES else TINY
    small = (*COMMON, "storage.num_steps=16") if recipe == "a2c" else small  # it has no minibatches
    return (*small, f"agent={recipe}")


def tiny_run(recipe: str) -> tuple[str, ...]:
    """The same, on an environment of the tests that suits it."""
    return (*tiny(recipe), *ENVS[recipe])


def run_dir(folder: Path) -> str:
    return f"hydra.run.dir={folder}"


def start(
    *arguments: str,
    env: dict[str, str] | None = None,
    program: tuple[str, ...] = ("-m", "hsw.train"),
    cwd: Path = ROOT,
    forked: bool = True,
) -> Any:
    """Start a command in a process and a session of its own.

    Args:
        arguments: Of the command.
        env: Variables beside this process's.
        program: What Python is to run.
        cwd: Where.
        forked: It may have imported already what it needs, see tests.warm; not where that is what a test is about.
    """
    environment = {**os.environ, **(env or {})}
    if forked and can_fork(program, environment):
        return Forked({"program": program, "arguments": arguments, "environment": environment, "folder": str(cwd)})
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: Any, timeout: float = 60) -> Result:
    """Wait for a started command; it must leave no process behind."""
    timeout = patience(timeout)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        raise AssertionError(f"did not end within {timeout:.0f} s: {out}\n{err}") from None
    wait_for(lambda: not session_members(process.pid), 5)
    return Result(process.returncode, out, err)


def session_members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(path.parent.name))
    return found


def patience(seconds: float) -> float:
    """So many seconds, and more where others keep the machine busy."""
    return (seconds + 1.0) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_for(condition: Callable[[], Any], timeout: float = 60) -> None:
    timeout = patience(timeout)
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout:.0f} s"
        time.sleep(0.02)


def compose(*overrides: str) -> DictConfig:
    """The config of a command line."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
        return hydra.compose("config", overrides=list(overrides))


@contextlib.contextmanager
def agent_of(*overrides: str, folder: Path | None = None) -> Iterator[Agent]:
    """The agent of a tiny run, in a folder if one is given."""
    recipe = next((value[6:] for value in overrides if value.startswith("agent=")), "ppo")
    config = compose(*tiny(recipe), *overrides)
    plain, _ = check(config)
    run_folder = RunFolder(folder) if folder else None
    loggers = build_loggers(config.logger)
    try:
        agent = build_agent(config, Run(run_folder, loggers, plain, config.checkpoint_interval))
        try:
            yield agent
        finally:
            agent.env.close()
    finally:
        if run_folder:
            run_folder.close()


def train_on(agent: Agent, steps: int) -> dict[str, Any] | None:
    """Train; the state if a signal stopped it, None if it finished."""
    try:
        agent.train(steps)
    except Interrupted:
        return agent.state_dict()
    return None


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def newest(folder: Path) -> dict[str, Any]:
    """The state of a run's newest good checkpoint."""
    return load_newest(folder / "checkpoints")[0]


def without_times(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without those that differ from run to run."""
    names = ("time", "run")
    return [{k: v for k, v in row.items() if k not in names and not k.startswith("speed/")} for row in rows(folder)]


def contents(log: AppendLog) -> dict[str, Any]:
    """The rows of a AppendLog that count, by column, whatever the pieces that they come in."""
    columns: list[dict[int, torch.Tensor]] = [{} for _ in log.begin]
    for piece in log.pieces():
        numbers = [(n, k) for n, (b, e) in enumerate(zip(piece.begin, piece.end, strict=True)) for k in range(b, e)]
        for (n, k), row in zip(numbers, piece.rows, strict=True):
            columns[n][k] = row
    spans = [range(b, e) for b, e in zip(log.begin, log.end, strict=True)]
    kept = [torch.stack([rows[k] for k in span]) for rows, span in zip(columns, spans, strict=True)]
    return {"begin": list(log.begin), "end": list(log.end), "columns": kept}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The places where two nested states are not the same bit for bit."""
    if isinstance(one, AppendLog) and isinstance(other, AppendLog):
        return differences(contents(one), contents(other), path)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [path]
    if isinstance(one, dict) and isinstance(other, dict):
        if set(one) != set(other):
            return [f"{path}: {sorted(map(str, set(one) ^ set(other)))}"]
        return [place for key in one for place in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [p for i, (a, b) in enumerate(zip(one, other, strict=True)) for p in differences(a, b, f"{path}/{i}")]
    return [] if one == other else [path]
