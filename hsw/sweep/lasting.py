"""Jobs outlive their processes: one whose process died is launched again, and goes on from its last checkpoint.

Hydra's launchers give up when a process of theirs is killed: joblib's the whole sweep, submitit's whatever it has not
waited for yet. A run is the same wherever it goes on, so here a launcher is asked again for the jobs that it lost.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hsw.run.status import JobOutcome
from hsw.sweep.mailbox import NUMBER, Mailbox

TRIES = 3  # of a job
log = logging.getLogger("hsw")


class LastingLauncher(Launcher):
    """A launcher, and what the sweep's mailbox knows of its jobs.

    A process that dies may take others with it (joblib kills all of its own). So a job has its last try by itself: what
    dies then was nobody's victim.

    Args:
        launcher: One of Hydra's.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As of any launcher."""
        self._launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """As of any launcher."""
        mailbox = Mailbox.own
        if mailbox is None:
            return self._launcher.launch(job_overrides, initial_job_idx)
        waiting = dict(enumerate(job_overrides, initial_job_idx))
        deaths: Counter[int] = Counter()
        returns: list[JobReturn] = []
        company, batch = list(waiting), list(job_overrides)
        while company:
            try:
                with _waiting_for_each(self._launcher):
                    returns += self._launcher.launch(batch, company[0])
            except BrokenExecutor as error:
                log.warning("the launcher lost its processes: %s", str(error).partition("\n")[0])
            mailbox.wait_for(company)
            waiting = {number: job for number, job in waiting.items() if not mailbox.told(number)}
            if mailbox.stopped() is not None:
                break
            lost = [number for number in company if number in waiting]
            for number in [each for each in lost if mailbox.began(each)] or lost:  # some die before they can say that
                deaths[number] += 1
                if deaths[number] == TRIES:
                    mailbox.end(number, JobOutcome("failed", 5, note=f"its process died {TRIES} times"))
                    del waiting[number]
            company = [number for number in waiting if deaths[number] < TRIES - 1] or list(waiting)[:1]
            batch = [[*waiting[number], f"+hydra.job.env_set.{NUMBER}='{number}'"] for number in company]
            for number in company:
                mailbox.forget(number)
            if company:
                log.warning("of %d jobs the process died; %d go on, or begin again", len(lost), len(company))
        return returns


@contextlib.contextmanager
def _waiting_for_each(launcher: Launcher) -> Iterator[None]:
    """submitit raises for the first job whose process is gone, while others still run: here it goes on to wait."""
    if "submitit" not in type(launcher).__module__:
        yield
        return
    from submitit.core import core, utils

    results = core.Job.results

    def patient(job: Any) -> Any:
        try:
            return results(job)
        except utils.FailedJobError:  # raised in the job
            raise
        except utils.UncompletedJobError:
            return [JobReturn(status=JobStatus.COMPLETED)]

    setattr(core.Job, "results", patient)  # noqa: B010  whatever subclass the launcher makes
    try:
        yield
    finally:
        setattr(core.Job, "results", results)  # noqa: B010
