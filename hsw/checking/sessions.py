"""Short trainings of one config in processes of their own: to the end, stopped, killed, resumed."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import zlib
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from hsw.agent import Agent
from hsw.build import build_agent
from hsw.checking.children import ChildFailed, in_child
from hsw.config.resolved import check
from hsw.errors import Interrupted
from hsw.rerun.compare import Difference, differences
from hsw.run.checkpoint import load_newest
from hsw.run.folder import RunFolder
from hsw.run.services import Run

BUDGET = 160
# What is made small, as far as the config has it and the command line says nothing.
_SMALL: dict[str, Any] = {
    "env.num_envs": 2,
    "storage.num_steps": 16,
    "storage.size": 400,
    "storage.storage_size": 400,
    "storage.num_storages": 12,
    "storage.batch_size": 16,
    "algorithm.num_mini_batch": 2,
    "algorithm.num_epochs": 2,
    "algorithm.value_epochs": 2,
    "algorithm.target_interval": 4,
    "agent.num_warmup_steps": 24,
    "agent.log_interval": 32,
    "agent.num_actors": 1,
    "eval_episodes": 2,
}
Prepare = Callable[[Agent], Any]


def shrunk(config: DictConfig, said: set[str], **changes: Any) -> DictConfig:
    """A config that trains in a moment.

    Args:
        config: Composed.
        said: Keys that the command line gives, which stay.
        changes: Values by path, with __ for dots, as far as there is such a key.

    Raises:
        ConfigError: If it cannot work so.
    """
    small = config.copy()
    actors = OmegaConf.select(small, "agent.num_actors") is not None
    wanted: dict[str, Any] = {path: value for path, value in _SMALL.items() if path not in said}
    wanted |= {"storage.batch_size": 4} if actors and "storage.batch_size" not in said else {}
    wanted |= {path.replace("__", "."): value for path, value in changes.items()}
    with open_dict(small):
        for path, value in wanted.items():
            parent, _, name = path.rpartition(".")
            node = OmegaConf.select(small, parent) if parent else small
            inherited = node is not None and name in node and OmegaConf.is_interpolation(node, name)
            if node is None or (name not in node and parent != "env.kwargs") or (inherited and path in _SMALL):
                continue
            if path not in _SMALL or path in changes or name not in node or node[name] is None or node[name] > value:
                node[name] = value
        small.update(num_train_steps=BUDGET, quiet=True, threads=1, eval_interval=small.eval_interval)
    check(small)
    return small


class Session:
    """One training in a folder, in processes of its own.

    Args:
        config: Shrunk.
        folder: Of the run.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config, self.folder = config, folder

    def train(self, prepare: Prepare | None = None, resume: bool = False, seconds: float = 120.0) -> Any:
        """Train on; what `prepare` returned a function for is called at the end, and its answer returned.

        Raises:
            ChildFailed: If it fails.
        """
        return in_child(partial(_train, self.config, self.folder, prepare, resume), seconds=seconds)

    def killed(self, prepare: Prepare) -> bool:
        """Train until `prepare` kills the process; whether it did."""
        try:
            self.train(prepare)
        except ChildFailed as error:
            if error.kind:
                raise
            return True
        return False

    def state(self) -> dict[str, Any]:
        """What the newest checkpoint holds, but times."""
        state: dict[str, Any] = load_newest(self.folder / "checkpoints").state
        return {key: value for key, value in state.items() if key not in ("logger", "session")}

    def attributes(self, name: str) -> dict[str, str]:
        """What the parts' attributes were when they were saved, or loaded."""
        path = self.folder / f"{name}.attributes"
        return dict(json.loads(path.read_text())) if path.exists() else {}


def _train(config: DictConfig, folder: Path, prepare: Prepare | None, resume: bool) -> Any:
    config = config.copy()
    plain, _ = check(config)
    run_folder = RunFolder(folder)
    run = Run(run_folder, None, plain, checkpoint_interval=64)
    agent = build_agent(config, run, run.load() if resume else None)
    try:
        if resume:
            _note(agent, folder, "loaded")
        original = run.save

        def save(*args: Any, **kwargs: Any) -> Any:
            path = original(*args, **kwargs)
            _note(agent, folder, "saved")
            return path

        run.save = save  # type: ignore[method-assign]
        if config.eval_interval is None:
            agent.eval_env = None  # an episode may have no end
        tell = prepare(agent) if prepare else None
        try:
            agent.train(config.num_train_steps)
        except Interrupted:
            pass
        return tell() if callable(tell) else None
    finally:
        agent.env.abandon()
        run_folder.close()


def _note(agent: Agent, folder: Path, name: str) -> None:
    told: dict[str, str] = {}
    for part in ("policy", "algorithm", "storage", "intrinsic_reward"):
        owner = getattr(agent, part)
        if owner is None:
            continue
        for cls in type(owner).__mro__:
            if not cls.__module__.startswith(("hsw.", "torch", "builtins", "abc", "typing")):
                for key, value in vars(cls).items():
                    _value(value, f"{type(owner).__name__}.{key}", told, 3)
        _flatten(owner, type(owner).__name__, told, 0)
    (folder / f"{name}.attributes").write_text(json.dumps(told))


def of_hsw(target: type) -> set[str]:
    """The names of attributes that hsw's own classes give a part: they know what of them has to be saved."""
    own = [cls for cls in target.__mro__ if cls.__module__.startswith("hsw.")]
    return {name for cls in own for name in re.findall(r"self\.(\w+)", inspect.getsource(cls))}


_PLAIN = (bool, int, float, str, type(None), np.generic)
_OF_OTHERS = ("policy", "actor", "algorithm", "storage", "on_batch", "generator", "training", "progress")


def _flatten(owner: Any, path: str, told: dict[str, str], depth: int) -> None:
    for name, value in getattr(owner, "__dict__", {}).items():
        torchs = isinstance(owner, torch.nn.Module) and name.startswith("_") and name in vars(torch.nn.Module())
        if name not in _OF_OTHERS and not torchs and not name.startswith("__"):
            _value(value, f"{path}.{name}", told, depth)


def _value(value: Any, path: str, told: dict[str, str], depth: int) -> None:
    if isinstance(value, _PLAIN):
        told[path] = repr(value)
    elif isinstance(value, torch.Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if array.size < 5:
            told[path] = str(array.tolist())
        else:
            told[path] = f"{array.size} numbers ({zlib.crc32(np.ascontiguousarray(array).tobytes()):08x})"
    elif isinstance(value, list | tuple | set | deque):
        if len(value) < 50 and all(isinstance(item, _PLAIN) for item in value):
            told[path] = " ".join(repr(value).split())
        else:
            told[path] = f"{len(value)} items"
    elif isinstance(value, dict):
        for key, inner in value.items():
            _value(inner, f"{path}[{key!r}]", told, depth + 1)
    elif hasattr(value, "__dict__") and depth < 2 and not callable(value):
        _flatten(value, path, told, depth + 1)


def first_of(one: dict[str, Any], other: dict[str, Any]) -> Difference | None:
    """Where two final states differ first, the networks before all else."""
    order = sorted(one, key=lambda key: (key != "policy", key != "algorithm", key))
    return next(differences({key: one[key] for key in order}, other), None)


# -- how a training is ended; each is a `prepare` ---------------------------------------------------------------------


def _after(agent: Agent, owner: Any, method: str, number: int, action: Callable[[], None]) -> None:
    original, seen = getattr(owner, method), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        seen[0] += 1
        if seen[0] == number:
            action()
        return result

    setattr(owner, method, counted)


def ask_to_end(agent: Agent) -> None:
    """As a callback does, after two iterations: the budget counts as spent."""
    _after(agent, agent.services, "log", 2, lambda: agent.request_stop("it is checked"))


def terminate(agent: Agent) -> None:
    """SIGTERM in the midst of a rollout."""
    _after(agent, agent.env, "step", 43, lambda: os.kill(os.getpid(), signal.SIGTERM))


def kill(agent: Agent) -> None:
    """kill -9 some steps after the last checkpoint."""
    _after(agent, agent.env, "step", 60, lambda: os.kill(os.getpid(), signal.SIGKILL))
