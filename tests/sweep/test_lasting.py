"""Jobs whose processes die: whichever launcher runs them, the table is that of an undisturbed sweep."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.runs import TINY, finish, start
from tests.sweep.sweeps import EIGHT, assert_same_sweep, half_way, pids, sweep_dir, table

JOBLIB = ("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.slow
def test_a_killed_worker_of_joblib_changes_nothing(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = start(*JOBLIB, *EIGHT, sweep_dir(tmp_path))
    for count in (1, 4):
        half_way(process, tmp_path, count)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
    result = finish(process, 600)
    assert result.code == 0, result.err
    assert any("resumed at step" in path.read_text() for path in tmp_path.glob("seed-*/train.log"))
    assert_same_sweep(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_that_kills_its_process_again_and_again_fails_alone(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    jobs = ("env=gym", "env.id=CartPole-v1,tests.envs:Dies-v0", "seed=1,2", sweep_dir(tmp_path))
    result = finish(start("--multirun", f"hydra/launcher={launcher}", *TINY, *jobs), 300)
    assert result.refused(5, "2 of 4 jobs failed", "its process died 3 times")
    assert [row["status"] for row in table(tmp_path)] == ["done", "done", "failed", "failed"]
