"""What Hydra finds of hsw by itself: it takes plugins from this namespace alone. Their work is done in hsw.sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# Hydra imports this file whenever any program of this Python starts it: no more is imported here.


class GridSweeper(BasicSweeper):
    """Hydra's grid, whose jobs are launched again where a launcher lost them."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hsw.sweep.lasting import LastingLauncher

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = LastingLauncher(self.launcher)


class RayLauncher(Launcher):
    """Jobs as tasks of a Ray cluster.

    Args:
        address: `auto` (the cluster that RAY_ADDRESS names or that runs here, else as local), `local` (one of this
            machine's own, which ends with the sweep), or <host>:<port> of a cluster.
        num_cpus, num_gpus: That a job takes of its node.
        max_retries: Times that a job is queued again after its process or node was lost.
        start_timeout: Seconds without any job of the sweep running after which it is given up.
        runtime_env: More for Ray's environment of the jobs, such as env_vars; hsw itself is shipped.
    """

    def __init__(
        self,
        address: str = "auto",
        num_cpus: float = 1,
        num_gpus: float = 0,
        max_retries: int = 3,
        start_timeout: float = 300.0,
        runtime_env: Any = None,
    ) -> None:
        self.settings: dict[str, Any] = {"address": address, "num_cpus": num_cpus, "num_gpus": num_gpus}
        self.settings |= {"max_retries": max_retries, "start_timeout": start_timeout, "runtime_env": runtime_env}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hsw.sweep.ray_jobs import RayJobs

        jobs = RayJobs(**self.settings)
        jobs.launch(self.hydra_context, self.task_function, self.config, job_overrides, initial_job_idx)
        return []
