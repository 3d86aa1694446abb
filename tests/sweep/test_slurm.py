"""Sweeps on SLURM through submitit: the batch script, and whole sweeps on a SLURM of this machine."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import TINY, finish, start, wait_for
from tests.sweep import fake_slurm
from tests.sweep.sweeps import EIGHT, LONG, assert_same_sweep, half_way, sweep_dir, table

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
SLURM = ("--multirun", "hydra/launcher=submitit_slurm")


class Slurm:
    """A SLURM, and sweeps on it."""

    def __init__(self, folder: Path) -> None:
        self.variables = fake_slurm.install(folder)
        self.state = Path(self.variables["FAKE_SLURM"])

    def start(self, *arguments: str) -> Any:
        return start(*SLURM, *arguments, env=self.variables)

    def order(self, job: str, what: str) -> None:
        fake_slurm.order(self.state, job, what)

    def signal(self, job: str, signum: int) -> None:
        os.kill(int((self.state / f"{job}.task").read_text()), signum)

    def states(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.state.glob("*.state")}

    def options(self, number: int = 100) -> dict[str, str]:
        """What the batch script asks for."""
        found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", (self.state / f"{number}.sh").read_text(), re.MULTILINE)
        return {key: value.strip("'") for key, value in found}


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    found = Slurm(tmp_path / "slurm")
    try:
        yield found
    finally:  # nothing is left to run, also of a test that failed
        for path in found.state.glob("*.state"):
            found.order(path.stem, "kill")
        wait_for(lambda: not set(found.states().values()) & {"PENDING", "RUNNING", "REQUEUED"})


@pytest.mark.slow
def test_the_batch_script_asks_for_what_the_launcher_says(slurm: Slurm, tmp_path: Path) -> None:
    asked = ("cpus_per_task=3", "gpus_per_node=1", "mem_gb=5", "timeout_min=90", "signal_delay_s=60", "partition=gpu")
    asked += ("array_parallelism=2", "setup=[module load cuda]", "+additional_parameters.mail-type=END")
    settings = [f"{'+' * (key[0] == '+')}hydra.launcher.{key.lstrip('+')}" for key in asked]
    result = finish(slurm.start(*TINY, "seed=1,2,3", *settings, sweep_dir(tmp_path / "study")), 200)
    assert result.code == 0, result.err
    options = slurm.options()
    expected = {"cpus-per-task": "3", "gpus-per-node": "1", "mem": "5GB", "time": "90", "partition": "gpu"}
    expected |= {"signal": "USR2@60", "array": "0-2%2", "nodes": "1", "ntasks-per-node": "1", "mail-type": "END"}
    assert expected.items() <= options.items()
    assert "requeue" in options
    assert options["open-mode"] == "append"
    assert options["output"].startswith(str(tmp_path / "study" / ".submitit"))
    text = (slurm.state / "100.sh").read_text()
    assert text.index("module load cuda") < text.index("srun --unbuffered")
    assert [row["status"] for row in table(tmp_path / "study")] == ["done"] * 3
    finish(slurm.start(*TINY, "+hydra.launcher.additional_parameters.requeue=false", sweep_dir(tmp_path / "b")), 200)
    assert slurm.options(101)["requeue"] == "False"


@pytest.mark.slow
def test_a_sweep_whose_jobs_are_preempted_and_lose_their_node_ends_as_an_undisturbed_one(
    slurm: Slurm, whole: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    process = slurm.start(*EIGHT, "hydra.launcher.array_parallelism=2", sweep_dir(study))

    def job_of(name: str) -> str:
        return f"100_{int(name.removeprefix('seed-')) - 1}"

    warned = half_way(process, study, 1)
    slurm.signal(job_of(warned), signal.SIGUSR2)
    preempted = half_way(process, study, 2, [warned])
    slurm.order(job_of(preempted), "preempt")
    failed = half_way(process, study, 3, [warned, preempted])
    slurm.order(job_of(failed), "fail")
    killed = half_way(process, study, 4, [warned, preempted, failed])
    slurm.signal(job_of(killed), signal.SIGKILL)
    result = finish(process, 600)
    assert result.code == 0, result.err
    for job in (warned, preempted, failed, killed):
        assert "resumed at step" in (study / job / "train.log").read_text(), job
    assert slurm.states()[job_of(killed)] == "FAILED"
    wait_for(lambda: slurm.states()["101"] == "COMPLETED")  # launched again by the sweep
    assert_same_sweep(whole, study)


@pytest.mark.slow
def test_a_cancelled_job_is_saved_and_not_queued_again(slurm: Slurm, tmp_path: Path) -> None:
    study = tmp_path / "study"
    process = slurm.start(*LONG, "seed=1,2", "num_train_steps=1000,1000000", sweep_dir(study))
    wait_for(lambda: process.poll() is not None or len(done_jobs(study)) == 2, 300)
    for job in ("100_2", "100_3"):
        slurm.order(job, "cancel")
    result = finish(process, 300)
    assert result.refused(143, "the same command goes on")
    assert sorted(row["status"] for row in table(study)) == ["done", "done", "interrupted", "interrupted"]
    assert sorted(slurm.states().values()) == ["CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED"]


def done_jobs(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/status.json") if json.loads(path.read_text())["status"] == "done"]
