"""The command in a process of its own: stopped by signals, killed, and continued."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from hsw.run.checkpoint import list_checkpoints, read_state
from tests.runs import (
    TINY,
    Result,
    agent_of,
    call,
    differences,
    finish,
    newest,
    rows,
    run_dir,
    start,
    train_on,
    wait_for,
)
from tests.test_resume import in_rollout

BUDGET = 3000
RUN = (*TINY, f"num_train_steps={BUDGET}", "storage.num_steps=128", "checkpoint_interval=400", "eval_interval=2000")
RECIPES = {
    "ppo-sync": ("agent=ppo", "env.normalize_obs=true"),
    "ppo-async": ("agent=ppo", "env.backend=async", "env.frame_stack=2"),
    "daac-sync": ("agent=daac", "algorithm.value_epochs=1", "env.normalize_reward=true"),
    "daac-async": ("agent=daac", "algorithm.value_epochs=1", "env.backend=async"),
}


def stop(process: Any, folder: Path, signum: int, ready: Any = None) -> Result:
    """Send a signal when some rows are logged, or when ready says so."""
    wait_for(lambda: process.poll() is not None or (ready or (lambda: len(rows_so_far(folder)) > 5))())
    os.kill(process.pid, signum)
    return finish(process)


def rows_so_far(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    "recipe",
    [
        "ppo-sync",
        "daac-async",
        pytest.param("ppo-async", marks=pytest.mark.slow),
        pytest.param("daac-sync", marks=pytest.mark.slow),
    ],
)
def test_runs_stopped_by_sigterm_and_by_kill_end_as_the_uninterrupted_one(recipe: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    uninterrupted = call(*RUN, *RECIPES[recipe], run_dir(whole))
    assert uninterrupted.code == 0, uninterrupted.err

    first = stop(start(*RUN, *RECIPES[recipe], run_dir(parts)), parts, signal.SIGTERM)
    assert first.code == 143, first.err
    assert f"resume={parts}" in first.sentence
    stopped_at = newest(parts)["step"]
    assert 0 < stopped_at < BUDGET
    mark = list_checkpoints(parts / "checkpoints")[-1]

    killed = start(f"resume={parts}")
    second = stop(killed, parts, signal.SIGKILL, lambda: list_checkpoints(parts / "checkpoints")[-1] > mark + 1)
    assert second.code == -signal.SIGKILL, second.err
    assert stopped_at < newest(parts)["step"] < BUDGET

    third = call(f"resume={parts}")
    assert third.code == 0, third.err
    ends = [newest(folder) for folder in (whole, parts)]
    for end in ends:
        end.pop("logger")
    assert differences(*ends) == []
    logged = [
        [(row["step"], row.get("learn/policy_loss"), row.get("eval/return_mean")) for row in rows(f)]
        for f in (whole, parts)
    ]
    assert logged[0] == logged[1]


@pytest.mark.parametrize(
    ("backend", "env"),
    [("native", ("env.backend=native",)), ("envpool", ("env.backend=envpool", "env.id=CartPole-v1"))],
)
def test_envs_that_cannot_be_restored_say_so_and_cut_the_trace(backend: str, env: Any, tmp_path: Path) -> None:
    if backend == "envpool" and find_spec("envpool") is None:  # not imported: hsw loads Qt before EnvPool
        pytest.skip("needs envpool")
    with agent_of(*env, folder=tmp_path) as agent:
        in_rollout(agent)
        state = train_on(agent, 200)
        assert state is not None
    with agent_of(*env) as agent:
        agent.load_state_dict(state)
        last = agent.storage.step - 1
        assert 0 < last < agent.storage.num_steps - 1
        ended = agent.storage.terminateds | agent.storage.truncateds
        assert torch.equal(ended[last], torch.as_tensor(state["storage"]["data"]["valid"][last]))
        agent.train(200)
        assert agent.step >= 200
    call(*TINY, *env, run_dir(tmp_path / "run"))
    resumed = call(f"resume={tmp_path / 'run'}", "num_train_steps=200")
    assert resumed.code == 0, resumed.err
    assert "not exact" in (tmp_path / "run" / "train.log").read_text()


def test_resume_takes_what_may_change_and_refuses_the_rest(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call(*TINY, run_dir(run)).code == 0
    kept = newest(run)
    for key in ("seed=2", "env.num_envs=4", "algorithm.lr=1e-4", "agent=daac", "eval_interval=5", "tag=other"):
        assert call(f"resume={run}", key).refused(2, key.split("=")[0])
    assert call("resume=" + str(tmp_path / "nothing")).refused(2, "no run in")
    assert differences(kept, newest(run)) == []
    allowed = ("num_train_steps=300", "device=cpu", "quiet=false", "checkpoint_interval=100", "logger=local")
    more = call(f"resume={run}", *allowed)
    assert more.code == 0, more.err
    assert newest(run)["step"] >= 300
    steps = [row["step"] for row in rows(run) if "learn/policy_loss" in row]
    assert steps == sorted(set(steps))


def test_two_processes_cannot_share_a_run_folder(tmp_path: Path) -> None:
    with agent_of(folder=tmp_path):
        (tmp_path / "config.yaml").write_text("")
        assert call(*TINY, run_dir(tmp_path)).refused(2, f"in use by process {os.getpid()}")


def test_a_finished_checkpoint_keeps_only_the_newest_two(tmp_path: Path) -> None:
    assert call(*TINY, "checkpoint_interval=20", run_dir(tmp_path)).code == 0
    numbers = list_checkpoints(tmp_path / "checkpoints")
    assert len(numbers) == 2
    assert numbers[0] > 1
    _, meta = read_state(tmp_path / "best" / f"{list_checkpoints(tmp_path / 'best')[-1]:06d}")
    assert set(meta) == {"step", "score"}
