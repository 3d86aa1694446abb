"""The jobs of a sweep as tasks of a Ray cluster (https://docs.ray.io).

A task is a job, in a process of its own. Ray retries nothing: a job whose process or node is lost is queued again from
here, and goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import configure_log
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hsw.agent.ray_cluster import RayCluster
from hsw.cli.main import describe
from hsw.errors import ResourceError, WorkersLostError, words_of
from hsw.run.status import JobOutcome
from hsw.sweep.mailbox import Mailbox
from hsw.sweep.ray_task import job_environment, package, run_there, stop_there

log = logging.getLogger("hsw")
KEY = "hydra.launcher.address"


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
        self.address, self.runtime_env = address, job_environment(runtime_env)
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
        with tempfile.TemporaryDirectory(prefix="hsw-") as place:
            code = {"py_modules": package(Path(place))}
            cluster = RayCluster(self.address, KEY, code, self.runtime_env, log_to_driver=True)
        try:
            if self.mailbox.stopped() is None:  # also while it connected
                ray = cluster.ray
                log.info("%d jobs on %s, on %d nodes", len(composed), cluster.name, len(_alive(ray)))
                self._run(ray, ray.put((context, task, Singleton.get_state())), composed)
        finally:
            cluster.close()

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
            why = words_of(error)
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
        for node in _alive(ray):
            task.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(self.mailbox.folder)

    def _tell_idle(self, ray: Any, active: bool) -> None:
        """Say what keeps jobs from running, now and then, and at last give up."""
        now = time.monotonic()
        if active:
            self._active = self._said = now
        elif now - self._active > self.patience:
            raise WorkersLostError(f"no job could run for {self.patience:g} s: {_missing(ray, self.needs)}")
        elif now - self._said > 20.0:
            self._said = now
            log.warning("no job runs yet: %s; waiting up to %g s", _missing(ray, self.needs), self.patience)


def _alive(ray: Any) -> list[Any]:
    """The nodes of the cluster."""
    return [node for node in ray.nodes() if node["Alive"]]


def _missing(ray: Any, needs: dict[str, float]) -> str:
    """What keeps a job from running, as part of a sentence.

    Args:
        needs: CPUs and GPUs of a job, as CPU and GPU.
    """
    nodes = _alive(ray)
    wants = f"a job takes {needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs of one node"
    sizes = [{kind: node["Resources"].get(kind, 0.0) for kind in needs} for node in nodes]
    if any(all(size[kind] >= count for kind, count in needs.items()) for size in sizes):
        free = {kind: ray.available_resources().get(kind, 0.0) for kind in needs}
        return f"{wants}, and of all {len(nodes)} {free['CPU']:g} and {free['GPU']:g} are free"
    largest = ", ".join(sorted({f"{size['CPU']:g} and {size['GPU']:g}" for size in sizes})) or "none"
    return (
        f"{wants}, and the {len(nodes)} nodes have {largest}; lower hydra.launcher.num_cpus or num_gpus, or let a "
        "larger node join the cluster"
    )
