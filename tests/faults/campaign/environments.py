"""Environments that misbehave: what x where x backend."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hsw.cli.main import run_main
from hsw.env import make_env
from hsw.errors import EnvError
from hsw.run.watched import guarded
from tests.faults.campaign import bad_env
from tests.faults.campaign.checks import check_end, check_same_metrics, hold
from tests.faults.campaign.kills import Tried
from tests.faults.campaign.server import crowded, fork, scratch
from tests.faults.campaign.store import Store
from tests.runs import run_dir, tiny

ID = "tests.faults.campaign.bad_env:Bad-v0"
ENDS = {bad_env.FATAL: {3}, bad_env.EITHER: {0, 3}, bad_env.HARMLESS: {0}}


def lives(rng: random.Random, store: Store) -> Tried:
    """The whole life of environments without a run around them, in one process or with workers."""
    fault, judgement = bad_env.draw(rng)
    backend = "sync" if rng.random() < 0.8 else "async"
    what = f"{fault['what']} {fault['argument'] or ''} in {fault['where']} of {backend}"
    with scratch() as place:
        kwargs = {**fault, "mark": str(place / "acted")}
        process = fork(place, main=partial(run_main, partial(_live, kwargs, backend)))
        code = process.wait()
        codes = _codes(fault, judgement, place)
        check_end(code, codes, process.err if fault["what"] != "print" else None, None)
        # What a step does to the process, but for torch's modes, is not looked at: it would cost every step. And what
        # follows an episode's end is a step, in which the environment is reset.
        unseen = fault["where"] in ("step", "reset") and fault["what"] in ("meta_device", "chdir", "handler")
        hold(unseen or not (place / "changed").exists(), f"{what}: the process's state was left changed")
    return Tried(what)


def _codes(fault: dict[str, Any], judgement: str, place: Path) -> set[int]:
    """How a command may end. Where no thread runs any more but the culprit's, only SIGKILL helps."""
    if not (place / "acted").exists():
        return {0}
    if fault["where"] == "build" and fault["what"] in ("raise", "unpicklable", "wordless"):
        return {2, 3}  # it may be that the arguments are wrong
    return ENDS[judgement] | ({-signal.SIGKILL} if fault["what"] == "hang_with_lock" else set())


def _timeout(fault: dict[str, Any]) -> float:
    """Seconds: short for those who never answer, long for those whom a loaded machine keeps waiting."""
    return 0.3 * crowded() if fault["what"] in bad_env.HANGS else 30.0


def _live(kwargs: dict[str, Any], backend: Any) -> None:
    """Build, reset, step and close; what comes back must be what a Counter says."""
    before = _process_state()
    with guarded() if kwargs["what"] in ("hang_in_c", "hang_with_lock") else contextlib.nullcontext():
        try:
            _walk(kwargs, backend)
        finally:
            if _process_state() != before:
                Path(kwargs["mark"]).with_name("changed").touch()


def _walk(kwargs: dict[str, Any], backend: Any) -> None:
    # A run has handlers of its own; with Python's, Ctrl-C would be a person's.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        env = make_env(ID, backend, 2, kwargs, timeout=_timeout(kwargs))
        try:
            obs, count = env.reset(), 0
            for _ in range(80):
                row = env.step(np.zeros(2, np.int64))
                count = 0 if count == 5 else count + 1  # the row after an end is a reset
                told = np.asarray(row.obs if hasattr(row, "obs") else row[0])
                if not np.array_equal(told, np.full((2, 1), count, np.float32)):
                    raise EnvError(f"observed {told.ravel().tolist()} in place of {count}")
            del obs
        finally:
            env.close()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _process_state() -> tuple[Any, ...]:
    torchs = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_inference_mode_enabled()
    handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP)]
    return *torchs, torch.get_default_device(), os.getcwd(), handlers


def environments(rng: random.Random, store: Store) -> Tried:
    """Runs on them, with every agent and backend."""
    recipe = rng.choice(("ppo", "ppo", "daac", "sac", "impala"))
    backend = rng.choice(("sync", "async")) if recipe != "impala" else "sync"
    fault, judgement = bad_env.draw(rng)
    what = f"{fault['what']} {fault['argument'] or ''} in {fault['where']} of {backend} with {recipe}"
    options = ["env=gym", f"env.id={ID}", f"env.backend={backend}", "checkpoint_interval=40"]
    options += [f"env.timeout={_timeout(fault)}"]
    if recipe == "impala":
        options += ["agent.max_restarts=1", f"agent.actor_timeout={10 * _timeout(fault)}"]
    continuous = {"continuous": True} if recipe == "sac" else {}
    with scratch() as place:
        kwargs = {**fault, **continuous, "mark": str(place / "acted")}
        process = fork(place, *tiny(recipe), *options, _override(kwargs), run_dir(place / "run"))
        code = process.wait()
        codes = _codes(fault, judgement, place)
        if recipe == "impala" and judgement != bad_env.HARMLESS:
            codes |= {0, 5}  # it may be made good by another actor
        check_end(code, codes, process.err if fault["what"] != "print" else None, place / "run")
        if judgement == bad_env.HARMLESS and recipe != "impala":
            nothing = {"what": "nothing", "where": "step", **continuous}
            whole = store.run(*tiny(recipe), *options, _override(nothing))
            check_same_metrics(place / "run", whole, what)
    return Tried(what)


def _override(kwargs: dict[str, Any]) -> str:
    """Them as a word of the command line."""

    def word(value: Any) -> str:
        if isinstance(value, list):
            return f"[{','.join(map(word, value))}]"
        if value is None or isinstance(value, bool | int):
            return "null" if value is None else str(value).lower()
        return f"'{value}'"

    return f"+env.kwargs={{{','.join(f'{key}:{word(value)}' for key, value in kwargs.items())}}}"


ENVIRONMENTS: dict[str, tuple[Callable[[random.Random, Store], Tried], float]] = {
    "lives": (lives, 12),
    "environments": (environments, 10),
}
