"""Sweeps: jobs that fail, sweeps that are stopped, killed and run again, and where all that is written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsw.config.resolvers import job_name, safe_name, study_name
from hsw.run.checkpoint import list_checkpoints
from hsw.run.folder import RunFolder
from hsw.sweep.callback import Sweep
from tests.runs import TINY, call, differences, finish, newest, rows, run_dir, start, wait_for, without_times
from tests.wandb_server import serve

SWEEP = ("--multirun", *TINY)  # flags stand before overrides
HALFWAY = (*SWEEP, "storage.num_steps=128", "num_train_steps=2000", "checkpoint_interval=400", "seed=1,2")


def sweep_dir(folder: Path) -> str:
    return f"hydra.sweep.dir={folder}"


def table(folder: Path) -> dict[str, dict[str, str]]:
    """jobs.csv, by job."""
    with (folder / "jobs.csv").open() as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def status(folder: Path) -> Any:
    return json.loads((folder / "status.json").read_text())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "text", ["../../x", "a" * 300, "a\0b", "größe-π", "", ".", "..", "a/b", "-x", "a b", "~/x", "ü"]
)
def test_any_text_becomes_the_name_of_one_folder(text: str, tmp_path: Path) -> None:
    name = safe_name(text)
    (tmp_path / "root" / name).mkdir(parents=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [name]
    assert len(name) <= 100
    assert name != safe_name(text + "x")


def test_a_job_is_named_by_what_varies_whatever_the_order() -> None:
    assert job_name(["seed=1", "quiet=true", "agent=daac"], ["quiet"]) == "agent-daac+seed-1"
    assert job_name(["agent=daac", "seed=1"]) == "agent-daac+seed-1"
    assert job_name(["+env.kwargs.gravity=9", "~preset"]).startswith("env.kwargs.gravity-9+_preset-")
    names = {job_name([f"network.hidden_sizes=[{size},8]"]) for size in range(20)}
    assert len(names) == 20
    assert study_name(None, "default") == "sweep"
    assert study_name(None, "mine") == "mine"
    assert study_name("daac_vs_ppo", "mine") == "daac_vs_ppo"


# Job 2 of 3 fails.
def test_a_failed_job_stops_no_other_and_a_rerun_skips_what_is_done(tmp_path: Path) -> None:
    study = tmp_path / "study"
    lrs = "algorithm.lr=1e-3,-1,1e-4"
    first = call(*SWEEP, lrs, sweep_dir(study))
    assert first.refused(2, "1 of 3 jobs failed", "algorithm.lr--1", "algorithm.lr=-1 must be")
    rows = table(study)
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done"]
    assert all(line in first.out for line in rows)
    done = study / "algorithm.lr-0.001"
    assert float(rows[done.name]["return"]) == status(done)["return"]
    assert int(rows[done.name]["steps"]) == status(done)["steps"] >= 128
    assert not list(study.glob(".notes*"))
    before = times(done)
    second = call(*SWEEP, lrs, sweep_dir(study))
    assert second.refused(2, "1 of 3 jobs failed")
    assert times(done) == before
    assert table(study)[done.name]["note"] == "done before"


def test_fail_fast_starts_no_job_after_a_failure(tmp_path: Path) -> None:
    result = call(*SWEEP, "algorithm.lr=-1,1e-3", "fail_fast=true", sweep_dir(tmp_path))
    assert result.refused(2, "1 of 2 jobs failed")
    assert [row["status"] for row in table(tmp_path).values()] == ["failed", "not started"]


def test_a_job_with_another_config_is_refused_and_one_with_more_budget_goes_on(tmp_path: Path) -> None:
    seeds = ("seed=1,2", sweep_dir(tmp_path))
    assert call(*SWEEP, *seeds).code == 0
    kept = times(tmp_path / "seed-1")
    other = call(*SWEEP, *seeds, "algorithm.entropy_coef=0.5")
    assert other.refused(2, "2 of 2 jobs failed", "holds a run with algorithm.entropy_coef=", "hydra.sweep.dir=")
    assert times(tmp_path / "seed-1") == kept
    assert status(tmp_path / "seed-1")["status"] == "done"
    more = call(*SWEEP, *seeds, "num_train_steps=300", "checkpoint_interval=100")
    assert more.code == 0, more.err
    assert newest(tmp_path / "seed-1")["step"] >= 300
    assert status(tmp_path / "seed-1")["num_train_steps"] == 300
    assert call(f"resume={tmp_path / 'seed-1'}", "num_train_steps=400").code == 0  # by itself, and still the same job
    assert call(*SWEEP, *seeds, "num_train_steps=300").code == 0


def test_a_job_whose_folder_is_in_use_fails_and_the_others_run(tmp_path: Path) -> None:
    owner = RunFolder(tmp_path / "seed-1")
    try:
        result = call(*SWEEP, "seed=1,2", sweep_dir(tmp_path))
    finally:
        owner.close()
    assert result.refused(2, "1 of 2 jobs failed", f"in use by process {os.getpid()}")
    assert [row["status"] for row in table(tmp_path).values()] == ["failed", "done"]
    assert call(*SWEEP, "seed=1,2", sweep_dir(tmp_path)).code == 0


def test_a_folder_with_a_run_that_is_not_the_sweeps_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / "config.yaml").write_text("seed: 7\n")
    assert call(*SWEEP, "seed=1,2", sweep_dir(tmp_path)).refused(2, "does not say which")
    (tmp_path / "seed-1" / "status.json").write_text("[")
    assert call(*SWEEP, "seed=1,2", sweep_dir(tmp_path)).refused(7, "status.json cannot be read")
    assert (tmp_path / "seed-1" / "config.yaml").read_text() == "seed: 7\n"


# What a job is called, and where it is.
def test_a_job_has_the_same_folder_when_there_are_more_beside_it(tmp_path: Path) -> None:
    for seeds, jobs in (("1", {"seed-1"}), ("2", {"seed-2"}), ("1,2", {"seed-1", "seed-2"})):
        result = call(*SWEEP, "agent=ppo", f"seed={seeds}", sweep_dir(tmp_path / "plain"))
        assert set(table(tmp_path / "plain")) == jobs
    assert result.out.count("done before") == 2
    study = ("experiments=daac_vs_ppo", *TINY, "eval_interval=null", sweep_dir(tmp_path / "study"))
    assert call(*study, "seed=1").code == 0
    end = call(*study, "seed=1,2", "fail_fast=true")
    assert {path.name for path in (tmp_path / "study").glob("agent*")} == set(table(tmp_path / "study"))
    assert set(table(tmp_path / "study")) == {f"agent-{agent}+seed-{n}" for agent in ("daac", "ppo") for n in (1, 2)}
    assert end.out.count("done before") == 2


def test_jobs_lie_beside_their_table_and_rows_are_their_own(tmp_path: Path) -> None:
    end = call(*SWEEP, "seed=shuffle(range(1,5))", "tag=a,b", f"hydra.sweep.dir={tmp_path}/${{tag}}")
    assert end.code == 0, end.err
    (folder,) = tmp_path.iterdir()
    rows = table(folder)
    assert len(rows) == 8
    for job, row in rows.items():
        assert float(row["return"]) == status(folder / job)["return"]


def test_choices_by_a_pattern_are_swept(tmp_path: Path) -> None:
    assert call(*SWEEP, "agent=glob(pp?)", "seed=1,2", sweep_dir(tmp_path)).code == 0
    assert set(table(tmp_path)) == {"seed-1", "seed-2"}


def test_what_no_sweep_can_be_is_refused_at_once(tmp_path: Path) -> None:
    tiny = (*TINY, sweep_dir(tmp_path), run_dir(tmp_path))
    assert call("--multirun", *tiny, "experiments=daac_vs_ppo,value_freq").refused(2, "a sweep is of one study")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    assert call("--multirun", *tiny, "seed=1,2", f"resume={tmp_path / 'run'}").refused(2, "leave resume out")
    assert call(*tiny, "hydra.mode=RUN", "experiments=daac_vs_ppo").refused(2, "experiments=daac_vs_ppo is a sweep")
    if not shutil.which("srun"):
        assert call("--multirun", *tiny, "seed=1,2", "hydra/launcher=submitit_slurm").refused(2, "no SLURM here")
    (tmp_path / "seed-1" / "train.log").mkdir(parents=True)
    (tmp_path / "seed-2").touch()
    refused = call("--multirun", *tiny, "seed=1,2,3")
    assert refused.refused(6, "cannot write into seed-1, seed-2 in", "move it away")
    assert not (tmp_path / "seed-3").exists()


def test_notes_of_others_and_a_status_that_is_none_stop_no_sweep(tmp_path: Path) -> None:
    host = socket.gethostname()
    ours, theirs = f".notes-{host}-999999999", {f".notes-{host}-abc", f".notes-{host}-2-999999999"}
    for name in (ours, *theirs):
        (tmp_path / name).mkdir()
    assert call(*SWEEP, "seed=1,2", sweep_dir(tmp_path)).code == 0
    assert {path.name for path in tmp_path.glob(".notes*")} == theirs
    (tmp_path / "seed-1" / "status.json").write_text(json.dumps(status(tmp_path / "seed-1") | {"return": "x"}))
    again = call(*SWEEP, "seed=1,2", sweep_dir(tmp_path))
    assert again.refused(7, "status.json cannot be read")
    assert [row["status"] for row in table(tmp_path).values()] == ["failed", "done"]


def test_a_job_that_still_runs_is_no_failure(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, ["a", "b", "c", "d"])
    try:
        (sweep.mailbox.folder / "0.pid").write_text(f"{socket.gethostname()} 1")
        (sweep.mailbox.folder / "1.pid").write_text(f"{socket.gethostname()} 999999999")
        (sweep.mailbox.folder / "2.pid").write_text("")  # the disk was full
        found = [(outcome.job, outcome.status, outcome.note) for outcome in sweep.outcomes()]
    finally:
        sweep.close()
    died = "its process died"
    assert found[:2] == [("a", "running", "in process 1"), ("b", "failed", died)]
    assert found[2:] == [("c", "failed", died), ("d", "not started", None)]


def test_a_single_run_leaves_its_status(tmp_path: Path) -> None:
    assert call(*TINY, run_dir(tmp_path)).code == 0
    left = status(tmp_path)
    assert (left["status"], left["exit_code"], left["return"]) == ("done", 0, newest(tmp_path)["best_score"])
    failed = tmp_path / "failed"
    assert call(*TINY, "env.id=tests.envs:StepRaises-v0", run_dir(failed)).code == 3
    assert status(failed)["status"] == "failed"
    assert status(failed)["error"]


# The sweep is stopped, and killed, and run again.
def test_a_sweep_stopped_and_killed_ends_as_one_that_never_was(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call(*HALFWAY, sweep_dir(whole)).code == 0

    def stop(job: str, signum: int) -> Any:
        process = start(*HALFWAY, sweep_dir(parts))
        checkpoints = parts / job / "checkpoints"
        wait_for(lambda: process.poll() is not None or (checkpoints.is_dir() and list_checkpoints(checkpoints)))
        os.kill(process.pid, signum)
        return finish(process)

    stopped = stop("seed-1", signal.SIGTERM)
    assert stopped.refused(143, "the sweep was stopped by signal 15")
    assert [row["status"] for row in table(parts).values()] == ["interrupted", "not started"]
    assert status(parts / "seed-1")["status"] == "interrupted"

    assert stop("seed-2", signal.SIGKILL).code == -signal.SIGKILL
    assert [status(parts / f"seed-{n}")["status"] for n in (1, 2)] == ["done", "running"]
    assert 0 < newest(parts / "seed-2")["step"] < 2000
    before = times(parts / "seed-1")

    end = call(*HALFWAY, sweep_dir(parts))
    assert end.code == 0, end.err
    assert times(parts / "seed-1") == before
    assert "resumed at step " in (parts / "seed-2" / "train.log").read_text()
    assert not list(parts.glob(".notes*"))
    for job in ("seed-1", "seed-2"):
        ends = [newest(folder / job) for folder in (whole, parts)]
        for state in ends:
            state.pop("logger")
        assert differences(*ends) == []
        assert without_times(whole / job) == without_times(parts / job)


def without_empty(config: Any) -> Any:
    """wandb sends no mapping that is empty."""
    if not isinstance(config, dict):
        return config
    return {key: without_empty(value) for key, value in config.items() if value != {}}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandb_is_one_run_per_job_in_the_studys_group(mode: str, tmp_path: Path) -> None:
    with serve() as (server, environment):
        command = (*SWEEP, "seed=1,2", "logger=wandb", f"logger.mode={mode}", "tag=mine", sweep_dir(tmp_path))
        for more in ((), ("num_train_steps=300",)):  # the second time, both jobs are resumed
            result = finish(start(*command, *more, env=environment), timeout=120)
            assert result.code == 0, result.err
        if mode == "offline":
            assert not server.runs
            sessions = sorted(tmp_path.glob("*/wandb/offline-run-*"))
            assert len(sessions) == 4  # two of each job
            sync = [str(Path(sys.executable).with_name("wandb")), "sync", "--yes", *map(str, sessions)]
            subprocess.run(sync, env={**os.environ, **environment}, check=True, timeout=120)
    jobs = {run["displayName"]: (identity, run) for identity, run in server.runs.items()}
    assert len(jobs) == len(server.runs) == 2
    for seed in (1, 2):
        job = f"seed-{seed}"
        identity, run = jobs[job]
        assert (run["groupName"], sorted(run["tags"])) == ("mine", ["cartpole", "ppo"])
        sent = {key: entry["value"] for key, entry in json.loads(run["config"]).items() if key != "_wandb"}
        assert sent == without_empty(yaml.safe_load((tmp_path / job / "config.yaml").read_text()))
        assert (sent["seed"], sent["algorithm"]["_target_"]) == (seed, "hsw.algorithm.PPO")
        kept = rows(tmp_path / job)
        history = server.lines[identity, "wandb-history.jsonl"]
        assert [row["global_step"] for row in history] == [row["step"] for row in kept]
        summary = server.lines[identity, "wandb-summary.json"][-1]
        assert summary["eval/return_mean"] == kept[-1]["eval/return_mean"]


@pytest.mark.slow
def test_joblib_runs_jobs_in_processes_of_one_thread(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    jobs = ("pair=ppo_cartpole,impala_catch", "seed=1,2", "num_train_steps=300", "eval_episodes=2", "quiet=true")
    result = finish(start("--multirun", "hydra/launcher=joblib", *jobs, sweep_dir(tmp_path)), timeout=120)
    assert result.code == 0, result.err
    assert {row["status"] for row in table(tmp_path).values()} == {"done"}
    assert all("threads: 1\n" in path.read_text() for path in tmp_path.glob("*/config.yaml"))

    long = (
        "hydra/launcher=joblib",
        *HALFWAY[1:-1],
        "seed=1,2,3",
        "num_train_steps=200000",
        sweep_dir(tmp_path / "long"),
    )
    process = start("--multirun", *long)
    both = [tmp_path / "long" / f"seed-{n}" / "checkpoints" for n in (1, 2)]
    wait_for(lambda: process.poll() is not None or all(path.is_dir() and list_checkpoints(path) for path in both))
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process).refused(143, "stopped by signal 15")
    rows = table(tmp_path / "long")
    assert [row["status"] for row in rows.values()] == ["interrupted", "interrupted", "not started"]


@pytest.mark.slow
def test_submitit_saves_a_preempted_job_and_resumes_it_in_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    jobs = (*HALFWAY[1:-1], "seed=1,2", "num_train_steps=20000", "checkpoint_interval=100000")
    assert call("--multirun", *jobs, sweep_dir(whole)).code == 0
    process = start("--multirun", "hydra/launcher=submitit_local", *jobs, sweep_dir(parts))
    metrics = parts / "seed-1" / "metrics.jsonl"
    wait_for(lambda: process.poll() is not None or (metrics.exists() and len(metrics.read_text().splitlines()) > 3))
    (pid,) = parts.glob(".notes*/0.pid")
    os.kill(int(pid.read_text().split()[1]), signal.SIGUSR2)
    wait_for(lambda: status(parts / "seed-1")["status"] == "interrupted")
    saved = newest(parts / "seed-1")["step"]
    assert 0 < saved < 20000
    result = finish(process, timeout=120)
    assert result.code == 0, result.err
    assert {row["status"] for row in table(parts).values()} == {"done"}
    assert differences(newest(whole / "seed-1")["policy"], newest(parts / "seed-1")["policy"]) == []
    assert without_times(whole / "seed-1") == without_times(parts / "seed-1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "study",
    [
        *("all_agents", "daac_vs_ppo", "exploration", "her_strategies", "impala_scaling", "memory", "rainbow_parts"),
        "value_freq",
    ],
)
def test_study_runs_on_a_smoke_budget(study: str, tmp_path: Path) -> None:
    result = call(f"experiments={study}", "budget=smoke", "quiet=true", sweep_dir(tmp_path))
    assert result.code == 0, result.err
    assert {row["status"] for row in table(tmp_path).values()} == {"done"}
    assert all(row["return"] for row in table(tmp_path).values())
