"""The jobs of a sweep as tasks of a Ray cluster (https://docs.ray.io).

A task is a job, in a process of its own. Ray retries nothing: a job whose process or node is lost is queued again from
here, and goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hsw.cli.main import describe
from hsw.errors import ResourceError, WorkersLostError
from hsw.run.status import JobOutcome
from hsw.sweep.mailbox import Mailbox
from hsw.sweep.ray_cluster import alive, connected, missing

log = logging.getLogger("hsw")


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


class RayJobs:
    """The jobs of a sweep on Ray. For the settings see hydra_plugins.hsw_sweep.RayLauncher."""

    def __init__(
        self,
        *,
        address: str,
        num_cpus: float,
        num_gpus: float,
        max_retries: int,
        start_timeout: float,
        runtime_env: Any,
    ) -> None:
        assert Mailbox.own is not None
        self.mailbox, self.token = Mailbox.own, secrets.token_hex()
        (self.mailbox.folder / "token").write_text(self.token)
        self.address, self.runtime_env = address, dict(runtime_env or {})
        self.needs, self.max_retries, self.patience = {"CPU": num_cpus, "GPU": num_gpus}, max_retries, start_timeout
        self._deaths: Counter[int] = Counter()

    def launch(
        self, context: HydraContext, task: TaskFunction, config: DictConfig, jobs: Sequence[Sequence[str]], first: int
    ) -> None:
        """Run jobs until each has told how it ended, or the sweep is stopped.

        Raises:
            WorkersLostError: If for too long none of them could run.
        """
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        composed = {}
        for number, overrides in enumerate(jobs, first):
            composed[number] = job = context.config_loader.load_sweep_config(config, list(overrides))
            with open_dict(job):
                job.hydra.job.id, job.hydra.job.num = str(number), number
        with connected(self.address, self.runtime_env) as ray:
            if self.mailbox.stopped() is None:  # also while it connected
                log.info("%d jobs on Ray, on %d nodes", len(composed), len(alive(ray)))
                self._run(ray, ray.put((context, task, Singleton.get_state())), composed)

    def _run(self, ray: Any, shared: Any, jobs: dict[int, DictConfig]) -> None:
        options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_retries": 0, "max_calls": 1}
        task = ray.remote(**options)(run_there)

        def queue(number: int) -> Any:
            return task.remote(shared, jobs[number], self.mailbox.folder, self.token)

        waiting = {queue(number): number for number in jobs}
        self._active = self._said = time.monotonic()
        asked = False
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=0.5)
            for ref in ready:
                number = waiting.pop(ref)
                if self._lost(ray, ref, number):
                    waiting[queue(number)] = number
            running = any(self.mailbox.began(number) for number in waiting.values())
            signum = self.mailbox.stopped()
            if signum is None:
                self._tell_idle(ray, bool(running or ready))
                continue
            if signum and not asked:  # Sweep sends signals to processes of this host
                asked = True
                self._stop(ray)
            if not running:
                return

    def _lost(self, ray: Any, ref: Any, number: int) -> bool:
        """Whether a job whose task is over is to be queued again."""
        end = self.mailbox.end
        try:
            if hindrance := ray.get(ref):
                end(number, JobOutcome("failed", ResourceError.exit_code, note=hindrance))
        except ray.exceptions.RayTaskError as error:
            message, code = describe(error.cause)
            end(number, JobOutcome("failed", code, note=message))
        except ray.exceptions.RayError as error:
            if self.mailbox.told(number) or self.mailbox.stopped() is not None:
                return False
            self._deaths[number] += 1
            self.mailbox.forget(number)
            why = " ".join(str(error).split())[:200]
            if self._deaths[number] <= self.max_retries:
                log.warning("job %d is queued again, its process or node was lost: %s", number, why)
                return True
            note = f"its process died {self._deaths[number]} times: {why}"
            end(number, JobOutcome("failed", WorkersLostError.exit_code, note=note))
        return False

    def _stop(self, ray: Any) -> None:
        """Reach the jobs of every node; a 0-CPU task runs at once."""
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        task = ray.remote(num_cpus=0, max_retries=0)(stop_there)
        for node in alive(ray):
            task.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(self.mailbox.folder)

    def _tell_idle(self, ray: Any, active: bool) -> None:
        """Say what keeps jobs from running, now and then, and at last give up."""
        now = time.monotonic()
        if active:
            self._active = self._said = now
        elif now - self._active > self.patience:
            raise WorkersLostError(f"no job could run for {self.patience:g} s: {missing(ray, self.needs)}")
        elif now - self._said > 20.0:
            self._said = now
            log.warning("no job runs yet: %s; waiting up to %g s", missing(ray, self.needs), self.patience)
