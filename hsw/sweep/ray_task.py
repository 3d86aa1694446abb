"""A job of a sweep as a task of a Ray cluster: what its node gets from here, and runs."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from omegaconf import DictConfig

import hsw
from hsw.config.place import conf_folder
from hsw.sweep.mailbox import Mailbox

_VARIABLES = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # a job that asks for no GPU sees none


def job_environment(more: dict[str, Any] | None) -> dict[str, Any]:
    """Ray's runtime environment of the jobs."""
    more = dict(more or {})
    return {**more, "env_vars": {**_VARIABLES, **more.get("env_vars", {})}}


def package(place: Path) -> list[str]:
    """hsw as a wheel has it, which is all of the program that is shipped."""
    root, ignore = Path(hsw.__file__).parent, shutil.ignore_patterns("__pycache__", "*.png", "report.md")
    shutil.copytree(root, place / "hsw", ignore=ignore)
    shutil.copytree(conf_folder(), place / "hsw" / "conf", ignore=ignore, dirs_exist_ok=True)
    plugins = importlib.util.find_spec("hydra_plugins.hsw_sweep")
    assert plugins is not None
    assert plugins.origin is not None
    (place / "hydra_plugins").mkdir()
    shutil.copy(plugins.origin, place / "hydra_plugins")
    return [str(place / "hsw"), str(place / "hydra_plugins")]


def run_there(shared: Any, config: DictConfig, folder: Path, token: str) -> str | None:
    """Run a job, as a task. Returns what keeps its node from running any."""
    try:
        seen = (folder / "token").read_text()
    except OSError:
        seen = ""
    if seen != token:
        return (
            f"the node {socket.gethostname()} does not see {folder.parent}; give a folder on a file system that all "
            "nodes share: hydra.sweep.dir=<folder>"
        )
    context, task, state = shared
    setup_globals()
    Singleton.set_state(state)
    _wait_for_owner(Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)
    run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return None


def stop_there(folder: Path) -> None:
    """Ask the jobs on a node to save and stop, as a task."""
    for pid in Mailbox(folder).processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _wait_for_owner(folder: Path, patience: float = 15.0) -> None:
    """Wait until a job's earlier process is gone, which may take a moment longer than the news of it."""
    end = time.monotonic() + patience
    with contextlib.suppress(FileNotFoundError), (folder / "run.lock").open("rb") as lock:
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)
