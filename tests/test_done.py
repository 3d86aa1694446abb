"""A run that is done: resumed once more it stays as it is, says so, and how to go on."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import call, newest, rows, run_dir, tiny_run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=["ppo", "daac", "sac", "her_sac", "impala"])
def finished(request: Any, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    assert call(*tiny_run(request.param), "num_train_steps=64", "allow=[tests]", run_dir(folder)).code == 0
    return folder


def test_a_run_that_is_done_changes_nothing_when_it_is_resumed_and_says_how_to_go_on(
    finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = contents(run)
    again = call(f"resume={run}", "allow=[tests]")
    assert again.code == 0, again.err
    assert contents(run) == before
    told = " ".join((again.out + again.err).split())
    assert "is done" in told
    command = shlex.split(told.partition("larger budget: ")[2])
    assert command[0] == "hsw-train"
    going = call(*command[1:])
    assert going.code == 0, going.err
    assert newest(run)["step"] >= 2 * 64
    assert [row["step"] for row in rows(run) if "eval/length" in row][-2:-1] == [newest(finished)["step"]]


def test_a_smaller_budget_is_done_too(finished: Path) -> None:
    before = contents(finished)
    assert call(f"resume={finished}", "num_train_steps=16", "allow=[tests]", "logger=csv").code == 0
    assert contents(finished) == before


def test_a_run_that_was_killed_between_its_last_checkpoint_and_its_status_is_evaluated_once(
    finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "status": "running", "exit_code": None}))
    logged = rows(run)
    assert call(f"resume={run}", "allow=[tests]").code == 0
    assert rows(run) == logged
    now = json.loads((run / "status.json").read_text())
    assert {key: now[key] for key in ("status", "exit_code", "steps", "return")} == {
        key: status[key] for key in ("status", "exit_code", "steps", "return")
    }


def test_a_job_that_is_done_changes_nothing_when_its_sweep_runs_again(tmp_path: Path) -> None:
    sweep = ("--multirun", *tiny_run("ppo"), "num_train_steps=64", "seed=1,2", f"hydra.sweep.dir={tmp_path}")
    assert call(*sweep).code == 0
    before = {name: contents(tmp_path / name) for name in ("seed-1", "seed-2")}
    again = call(*sweep)
    assert again.code == 0, again.err
    assert again.out.count("done before") == 2
    assert {name: contents(tmp_path / name) for name in before} == before
