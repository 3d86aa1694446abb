"""Jobs whose processes die: whichever launcher runs them, the table is that of an undisturbed sweep."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from hsw.run.status import DONE_BEFORE, JobOutcome
from hsw.sweep.job import run_job
from hsw.sweep.lasting import LastingLauncher
from hsw.sweep.mailbox import Mailbox
from tests.runs import TINY, finish, start
from tests.sweep.sweeps import EIGHT, assert_same_sweep, half_way, process_of, sweep_dir, table


class Fragile(Launcher):
    """Loses its processes as joblib's does: when one job dies, all that run die with it, and the others never begin.

    Args:
        deadly: Jobs that kill their process.
    """

    def __init__(self, mailbox: Mailbox, deadly: set[int]) -> None:
        self.mailbox, self.deadly = mailbox, deadly
        self.batches: list[list[int]] = []

    def setup(self, **_: Any) -> None: ...

    def launch(self, job_overrides: Any, initial_job_idx: int) -> list[JobReturn]:
        numbers = [int(job[0].partition("=")[2]) for job in job_overrides]
        self.batches.append(numbers)
        for place in range(0, len(numbers), 2):
            pair = numbers[place : place + 2]
            for number in pair:
                (self.mailbox.folder / f"{number}.pid").write_text(f"{socket.gethostname()} 999999999")
            if self.deadly.intersection(pair):
                raise BrokenExecutor("a worker is gone")
            for number in pair:
                self.mailbox.end(number, JobOutcome("done"))
        return []


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    Mailbox.own = Mailbox.create(tmp_path)
    yield Mailbox.own
    Mailbox.own = None


def test_a_deadly_job_fails_and_takes_no_other_with_it(mailbox: Mailbox) -> None:
    launcher = Fragile(mailbox, {1})
    LastingLauncher(launcher).launch([[f"seed={number}"] for number in range(6)], 0)
    assert launcher.batches == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [2, 3, 4, 5], [0], [1]]
    assert [mailbox.outcome(number).status for number in range(6)] == ["done", "failed", *["done"] * 4]
    assert (mailbox.outcome(1).exit_code, mailbox.outcome(1).note) == (5, "its process died 3 times")


def test_nothing_is_launched_again_after_a_stop(mailbox: Mailbox) -> None:
    launcher = Fragile(mailbox, {0})
    mailbox.stop(15)
    LastingLauncher(launcher).launch([["seed=0"], ["seed=1"]], 0)
    assert launcher.batches == [[0, 1]]


JOBLIB = ("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.parametrize(("lost", "note"), [(True, None), (False, DONE_BEFORE)])
def test_a_job_that_was_done_as_its_process_died_was_not_done_before(
    lost: bool, note: str | None, mailbox: Mailbox
) -> None:
    if lost:
        (mailbox.folder / "0.pid").write_text(f"{socket.gethostname()} 999999999")
        mailbox.forget(0)
    run_job(lambda: JobOutcome("done", note=DONE_BEFORE), "seed-1", 0, fail_fast=False)
    assert (mailbox.outcome(0).status, mailbox.outcome(0).note) == ("done", note)


@pytest.mark.slow
def test_a_killed_worker_of_joblib_changes_nothing(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = start(*JOBLIB, *EIGHT, sweep_dir(tmp_path))
    for count in (1, 4):
        killed = half_way(process, tmp_path, count)
        os.kill(process_of(tmp_path, killed) or 0, signal.SIGKILL)
    result = finish(process, 600)
    assert result.code == 0, result.err
    assert "resumed at step" in (tmp_path / killed / "train.log").read_text()
    assert_same_sweep(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_that_kills_its_process_again_and_again_fails_alone(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    jobs = ("env=gym", "env.id=CartPole-v1,tests.envs:Dies-v0", sweep_dir(tmp_path))
    result = finish(start("--multirun", f"hydra/launcher={launcher}", *TINY, *jobs), 300)
    assert result.refused(5, "1 of 2 jobs failed", "its process died 3 times")
    assert [row["status"] for row in table(tmp_path)] == ["done", "failed"]
