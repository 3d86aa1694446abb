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
    tiny,
    train_on,
    wait_for,
    without_times,
)
from tests.test_resume import in_rollout, nth, when

BUDGET = 3000
RUN = (f"num_train_steps={BUDGET}", "checkpoint_interval=400", "eval_interval=2000")
LONG = ("storage.num_steps=128",)
DAAC = (*tiny("daac"), *LONG, "algorithm.value_epochs=1")
REPLAY = ("agent.updates_per_step=0.1", "agent.log_interval=100", "storage.storage_size=1000")
RECIPES = {
    "ppo-sync": (*tiny("ppo"), *LONG, "env.normalize_obs=true"),
    "ppo-async": (*tiny("ppo"), *LONG, "env.backend=async", "env.frame_stack=2"),
    "daac-sync": (*DAAC, "env.normalize_reward=true"),
    "daac-async": (*DAAC, "env.backend=async"),
    "sac-async": (*tiny("sac"), *REPLAY, "env=pendulum", "env.backend=async", "env.num_envs=2"),
    "ppo_rnd-sync": (*tiny("ppo_rnd"), *LONG, "env=deep_sea", "env.num_envs=2"),
    "recurrent_ppo-sync": (*tiny("recurrent_ppo"), *LONG, "env=cartpole_positions", "env.num_envs=2"),
    "her_sac-sync": (*tiny("her_sac"), *REPLAY, "env=bit_flipping", "env.num_envs=2"),
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
        pytest.param("recurrent_ppo-sync", marks=pytest.mark.slow),
        pytest.param("ppo_rnd-sync", marks=pytest.mark.slow),
        pytest.param("her_sac-sync", marks=pytest.mark.slow),
        pytest.param("sac-async", marks=pytest.mark.slow),
        pytest.param("ppo-async", marks=pytest.mark.slow),
        pytest.param("daac-sync", marks=pytest.mark.slow),
    ],
)
def test_runs_stopped_by_sigterm_and_by_kill_end_as_the_uninterrupted_one(recipe: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    uninterrupted = call(*RECIPES[recipe], *RUN, run_dir(whole))
    assert uninterrupted.code == 0, uninterrupted.err

    first = stop(start(*RECIPES[recipe], *RUN, run_dir(parts)), parts, signal.SIGTERM)
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
    assert without_times(whole) == without_times(parts)


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
    say_so(tmp_path / "run", *TINY, *env)


def say_so(run: Path, *overrides: str) -> None:
    assert call(*overrides, run_dir(run)).code == 0
    resumed = call(f"resume={run}", "num_train_steps=200")
    assert resumed.code == 0, resumed.err
    assert "not exact" in (run / "train.log").read_text()


@pytest.mark.parametrize(
    ("recipe", "env"),
    [
        ("sac", ("env.id=Pendulum-v1",)),
        pytest.param("her_sac", ("env.id=FetchReach-v4", "env.num_envs=1"), marks=pytest.mark.slow),
    ],
)
def test_a_replay_of_envs_that_cannot_be_restored_ends_their_episodes(recipe: str, env: Any, tmp_path: Path) -> None:
    if find_spec("envpool") is None:
        pytest.skip("needs envpool")
    overrides = (f"agent={recipe}", "env.backend=envpool", "storage.storage_size=1000", *env)
    with agent_of(*overrides) as agent:
        when(agent, agent, "_collect_row", nth(30))
        state = train_on(agent, 200)
        assert state is not None
    stored = agent.storage.get_all_buffer_data()
    with agent_of(*overrides) as agent:
        agent.load_state_dict(state)
        resumed = agent.storage.get_all_buffer_data()
        last = stored["offsets"] == -1
        assert last.sum() == agent.env.num_envs
        assert resumed["offsets"].tolist() == torch.where(last, -2, stored["offsets"]).tolist()
        for data in (stored, resumed):
            data.pop("offsets")
        assert differences(stored, resumed) == []
        agent.train(200)
        assert agent.step >= 200
        offsets = agent.storage.get_all_buffer_data()["offsets"]
        assert (offsets == 0).sum() >= agent.env.num_envs
    say_so(tmp_path / "run", *tiny(recipe), *overrides[1:])


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
    assert set(meta) == {"step", "score", "run", "built_from"}
