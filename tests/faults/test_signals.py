"""Signals and kills at the worst moments: what was saved stands, and nothing is left running."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hsw.run import checkpoint
from tests.runs import (
    TINY,
    call,
    differences,
    finish,
    newest,
    patience,
    rows,
    run_dir,
    session_members,
    start,
    tiny_run,
    wait_for,
    without_times,
)


@pytest.mark.parametrize(
    ("recipe", "signum", "code"),
    [("ppo", signal.SIGTERM, 143), ("ppo", signal.SIGINT, 130), ("sac", signal.SIGTERM, 143)],
)
def test_a_signal_during_a_save_is_obeyed_after_it(
    recipe: str, signum: int, code: int, tmp_path: Path, monkeypatch: Any
) -> None:
    original, count = checkpoint.write_state, [0]

    def write(*args: Any) -> None:
        count[0] += 1
        if count[0] == 2:
            os.kill(os.getpid(), signum)
        original(*args)

    monkeypatch.setattr(checkpoint, "write_state", write)
    stopped = call(*tiny_run(recipe), "num_train_steps=2000", "checkpoint_interval=40", run_dir(tmp_path))
    assert stopped.refused(code, f"stopped by signal {signum} at step", "continue with")
    assert newest(tmp_path)["step"] < 2000
    resumed = call(f"resume={tmp_path}", "num_train_steps=200", "allow=[tests]")
    assert resumed.code == 0, resumed.err


@pytest.mark.parametrize(
    ("recipe", "renames", "memory"),
    [
        ("ppo", 3, ()),
        pytest.param("her_sac", 3, (), marks=pytest.mark.slow),  # of a file of rows
        ("her_sac", 4, ()),  # of a checkpoint whose rows are written
        *[
            pytest.param(recipe, 3, (), marks=pytest.mark.slow)
            for recipe in ("a2c", "daac", "ppo_rnd", "recurrent_ppo")
        ],
        *[pytest.param(recipe, 4, (), marks=pytest.mark.slow) for recipe in ("dqn", "her_dqn", "sac", "td3")],
        *[
            pytest.param(recipe, 4, ("storage.memory=disk",), marks=pytest.mark.slow, id=f"{recipe}-disk")
            for recipe in ("dqn", "her_sac")
        ],
    ],
)
def test_a_kill_during_a_save_costs_one_checkpoint_and_leaves_no_rubbish(
    recipe: str, renames: int, memory: tuple[str, ...], tmp_path: Path
) -> None:
    program = (
        "import os, hsw.train\n"
        "from hsw.run import checkpoint\n"
        "rename, count = os.rename, []\n"
        "def killed(source, target, **options):\n"
        "    count.append(target)\n"
        f"    os.kill(os.getpid(), 9) if len(count) == {renames} else rename(source, target, **options)\n"
        "checkpoint.os.rename = killed\n"
        "hsw.train.cli()\n"
    )
    arguments = (*tiny_run(recipe), "checkpoint_interval=40", "num_train_steps=200")
    run, whole = tmp_path / "run", tmp_path / "whole"
    killed = finish(start(*arguments, *memory, run_dir(run), program=("-c", program)))
    assert killed.code == -signal.SIGKILL, killed.err
    assert list((run / "checkpoints").glob(".writing-*"))
    assert 40 <= newest(run)["step"] < 200
    resumed = call(f"resume={run}", "allow=[tests]")
    assert resumed.code == 0, resumed.err
    assert not list((run / "checkpoints").glob(".writing-*"))
    assert not list(run.glob(".replay-*"))
    kept, used = files_of_rows(run)
    assert kept == used
    assert call(*arguments, run_dir(whole)).code == 0
    ends = [newest(folder) for folder in (run, whole)]
    for end in ends:
        end.pop("logger")
    assert differences(*ends) == []
    assert without_times(run) == without_times(whole)


def files_of_rows(run: Path) -> tuple[set[str], set[str]]:
    """The files of rows that there are, and those to which checkpoints refer."""
    manifests = [json.loads(path.read_text()) for path in run.glob("checkpoints/*/manifest.json")]
    used = {entry["sha256"] for manifest in manifests for rows in manifest["rows"].values() for entry in rows}
    return {path.name for path in run.glob("checkpoints/rows/*")}, used


def hanging(folder: Path) -> tuple[Any, Path]:
    """A run whose worker processes hang, so that a first signal cannot be obeyed at once."""
    arguments = (
        *TINY,
        "env.id=tests.envs:Hang-v0",
        "+env.kwargs.after=40",
        "env.backend=async",
        "checkpoint_interval=20",
    )
    process = start(*arguments, run_dir(folder))
    wait_for(lambda: process.poll() is not None or len(checkpoint.list_checkpoints(folder / "checkpoints")) == 2)
    time.sleep(0.3)
    return process, folder


def test_a_second_sigint_ends_a_stuck_run_at_once_and_its_workers_with_it(tmp_path: Path) -> None:
    process, folder = hanging(tmp_path)
    assert len(session_members(process.pid)) >= 3
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.7)  # within half a second two are one
    assert process.poll() is None
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert finish(process).code == 130
    assert time.monotonic() - begin < patience(4)
    assert newest(folder)["step"] >= 20


def test_workers_do_not_outlive_a_killed_trainer(tmp_path: Path) -> None:
    process, folder = hanging(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL
    assert newest(folder)["step"] >= 20


@pytest.mark.parametrize("recipe", ["ppo", pytest.param("impala", marks=pytest.mark.slow)])
def test_durations_do_not_follow_a_clock_that_is_set_back(recipe: str, tmp_path: Path, monkeypatch: Any) -> None:
    clock, calls = time.time, itertools.count(1)
    monkeypatch.setattr(time, "time", lambda: clock() - 86_400 * next(calls))  # a day with every look
    begin = time.monotonic()
    result = call(*tiny_run(recipe), "quiet=false", "eval_interval=64", "checkpoint_interval=40", run_dir(tmp_path))
    longest = time.monotonic() - begin
    assert result.code == 0, result.err
    logged = rows(tmp_path)
    times = [row["time"] for row in logged]
    assert times == sorted(times)
    speeds = [value for row in logged for key, value in row.items() if key.startswith("speed/")]
    assert len(speeds) >= 4
    told = json.loads((tmp_path / "status.json").read_bytes())["seconds"]
    assert all(0 <= seconds <= longest for seconds in (*times, told))
    assert all(speed >= 0 for speed in speeds)
    again = call(f"resume={tmp_path}", "num_train_steps=200")
    assert again.code == 0, again.err
    assert [row["time"] for row in rows(tmp_path)] == sorted(row["time"] for row in rows(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_hangup_stops_a_sweep_as_sigterm_does(launcher: str, tmp_path: Path) -> None:
    sweep = ("--multirun", *TINY, "seed=1,2,3", f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}")
    process = start(*sweep, "num_train_steps=1000000", "checkpoint_interval=200")
    wait_for(lambda: process.poll() is not None or list(tmp_path.glob("*/checkpoints/*/manifest.json")))
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGHUP)  # as a terminal that closes does
    result = finish(process)
    assert time.monotonic() - begin < patience(10)
    assert result.refused(143, "the sweep was stopped by signal 15", "the same command goes on")
    for folder in tmp_path.glob("seed-*"):
        if (folder / "status.json").exists():
            told = json.loads((folder / "status.json").read_bytes())
            assert (told["status"], told["exit_code"]) == ("interrupted", 143), told


@pytest.mark.slow
def test_a_sweep_under_nohup_takes_no_notice_of_a_hangup(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); import hsw.train; hsw.train.cli()"
    sweep = ("--multirun", *TINY, "seed=1,2", f"hydra.sweep.dir={tmp_path}", "num_train_steps=3000")
    process = start(*sweep, "checkpoint_interval=200", program=("-c", program))
    wait_for(lambda: process.poll() is not None or list(tmp_path.glob("*/checkpoints/*/manifest.json")))
    os.killpg(process.pid, signal.SIGHUP)
    assert finish(process).code == 0
