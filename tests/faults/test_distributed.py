"""Actors that die, hang and fail, learners that do, and signals: the run goes on or ends with one sentence, alone."""

from __future__ import annotations

import multiprocessing.forkserver
import os
import re
import resource
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hsw.agent import DistributedAgent
from hsw.agent.actor import HEARTBEAT
from hsw.errors import NonFiniteError, WorkersLostError
from hsw.run.checkpoint import read_state
from tests.agent.helpers import batches_of, distributed_agent
from tests.envs import Counter
from tests.runs import call, finish, newest, patience, rows, run_dir, session_members, start, tiny, tiny_run, wait_for
from tests.test_resume import nth, when


def alive(agent: DistributedAgent, pids: list[int]) -> list[int]:
    assert agent._actors.pool is None
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def actors(agent: DistributedAgent) -> list[int]:
    assert agent._actors.pool is not None
    return [seat.process.pid for seat in agent._actors.pool._seats]  # type: ignore[attr-defined]


def at_update(agent: DistributedAgent, number: int, do: Any) -> None:
    """Do something once, after that update."""
    condition = nth(number)
    when(agent, agent.algorithm, "update", lambda info: bool(condition(info) and do()))


def waiting(agent: DistributedAgent, index: int) -> bool:
    """All slots are full, so that the actor waits for one."""
    return not any(seat.slots for seat in agent._actors.pool._seats)  # type: ignore[union-attr]


def writing(agent: DistributedAgent, index: int) -> bool:
    rows_in_slot = float(agent._actors.actor.stats[index, HEARTBEAT]) % agent.storage.num_steps
    return 0.2 < rows_in_slot / agent.storage.num_steps < 0.8


@pytest.mark.parametrize("moment", [waiting, writing])
def test_a_killed_actor_is_replaced_and_its_unfinished_slots_are_never_learnt_from(moment: Any) -> None:
    agent = distributed_agent("Counter", num_steps=200, num_storages=12, env_kwargs={"length": 50})
    seen, killed = batches_of(agent), []

    def kill() -> None:
        wait_for(lambda: moment(agent, 0), 20)
        killed.extend(actors(agent))
        os.kill(killed[0], signal.SIGKILL)

    at_update(agent, 3, kill)
    agent.train(9600)
    assert agent._actors.pool is None
    assert len(killed) == 2
    assert alive(agent, killed) == []
    for batch in seen:
        assert (batch.versions[:-1] == batch.versions[0]).all()
        led = (batch.obs[:-1, ..., 0] + 1) * batch.valid[:-1]
        assert (batch.obs[1:, ..., 0] == led).all()


def test_all_actors_come_back_after_their_server_is_killed(caplog: Any) -> None:
    agent = distributed_agent()
    at_update(agent, 3, lambda: os.kill(multiprocessing.forkserver._forkserver._forkserver_pid, signal.SIGKILL))
    agent.train(2000)
    assert agent.step >= 2000
    assert len(re.findall("died with exit code .* it is started again", caplog.text)) == 2


def hang_once(path: Path) -> Counter:
    """An environment of which the first to come to its 40th step hangs."""

    class HangOnce(Counter):
        def step(self, action: Any) -> Any:
            if self.total == 40 and not path.exists():
                path.touch()
                time.sleep(3600)
            return super().step(action)

    return HangOnce()


def test_an_actor_that_hangs_is_replaced(tmp_path: Path, caplog: Any) -> None:
    # One actor: two would be done before the second had counted as hung.
    agent = distributed_agent(partial(hang_once, tmp_path / "hung"), actor_timeout=1.0, num_actors=1)
    agent.train(2000)
    assert agent.step >= 2000
    assert "has not made a step for 1 s; it is started again, and 9 restarts are left" in caplog.text


def test_actors_that_hang_again_and_again_end_the_run() -> None:
    agent = distributed_agent("Hang", env_kwargs={"after": 40}, actor_timeout=0.5, max_restarts=2)
    begin = time.monotonic()
    with pytest.raises(WorkersLostError, match=r"max_restarts=2 makes good; .* has not made a step for 0\.5 s"):
        agent.train(10**6)
    assert time.monotonic() - begin < patience(14)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NaNObs", "environment 0: the observation has a NaN"),
        ("StepRaises", "environment 0: step raised RuntimeError: the simulator fell over"),
        pytest.param("SysExit", "environment 0: step raised SystemExit: 3", marks=pytest.mark.slow),
        pytest.param("WrongShape", "environment 0: the observation has shape (2,)", marks=pytest.mark.slow),
        pytest.param("ResetRaises", "environment 0: reset raised RuntimeError", marks=pytest.mark.slow),
    ],
)
def test_actors_that_fail_again_and_again_end_the_run_with_the_first_error(
    name: str, message: str, tmp_path: Path
) -> None:
    after = 0 if name == "ResetRaises" else 40
    arguments = (f"env.id=tests.envs:{name}-v0", f"+env.kwargs.after={after}", "agent.max_restarts=1")
    ended = call(*tiny("impala"), *arguments, "num_train_steps=100000", run_dir(tmp_path))
    assert ended.refused(5, "agent.max_restarts=1", "the first error was: actor ", message)
    assert "Traceback" in (tmp_path / "train.log").read_text()
    rows(tmp_path)


def test_a_learner_that_raises_leaves_no_actor() -> None:
    agent, pids = distributed_agent(), []

    def fail() -> None:
        pids.extend(actors(agent))
        raise RuntimeError("the learner fell over")

    at_update(agent, 2, fail)
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="the learner fell over"):
        agent.train(10**6)
    assert time.monotonic() - begin < patience(9)
    assert len(pids) == 2
    assert alive(agent, pids) == []


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_batch(tmp_path: Path) -> None:
    agent = distributed_agent("Noise", folder=tmp_path, lstm_size=4)
    original, number = agent._actors.next_batch, nth(3)

    def poisoned(check: Any) -> Any:
        batch = original(check)
        if number(batch):
            batch["rewards"][0] = float("nan")
        return batch

    agent._actors.next_batch = poisoned  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=r"IMPALA's update 3 is not finite .* at step \d+; .*its batch is in"):
        agent.train(10**6)
    (kept,) = tmp_path.glob("nonfinite-*")
    assert {"obs", "rewards", "init_actor_states"} <= set(read_state(kept)[0])


def test_weights_that_overflow_end_the_run_before_an_actor_sees_them(tmp_path: Path) -> None:
    ended = call(*tiny_run("impala"), "algorithm.lr=1e38", "num_train_steps=100000", run_dir(tmp_path))
    assert ended.refused(4, "at step")


def test_too_few_open_files_are_refused_before_an_actor_starts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (128, 128))
    refused = call(*tiny_run("impala"), "agent.num_actors=40", run_dir(tmp_path))
    assert refused.refused(2, "agent.num_actors=40 needs about", "open files and 128 are allowed")


FEW = {
    "async": ("env=cartpole", "env.backend=async", "env.num_envs=16"),
    "actors": ("agent=impala", "env=catch", "agent.num_actors=16", "storage.num_storages=80"),
    "joblib": ("--multirun", "seed=1,2", "hydra/launcher=joblib"),
}


@pytest.mark.parametrize("what", [pytest.param(what, marks=pytest.mark.slow) for what in FEW])
def test_a_low_limit_of_open_files_ends_a_run_at_once_with_one_sentence(what: str, tmp_path: Path) -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\nimport hsw.train; hsw.train.cli()\n"
    )
    folders = (run_dir(tmp_path / "run"), f"hydra.sweep.dir={tmp_path}/sweep")
    begin = time.monotonic()
    ended = finish(start(*FEW[what], "quiet=true", *folders, program=("-c", program)))
    assert ended.refused(2, "open files and 40 are allowed")
    assert time.monotonic() - begin < patience(20)


def test_too_little_shared_memory_is_refused_before_an_actor_starts(tmp_path: Path, monkeypatch: Any) -> None:
    original = os.statvfs
    small = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: small if path == "/dev/shm" else original(path))
    refused = call(*tiny_run("impala"), run_dir(tmp_path))
    assert refused.refused(2, "storage.num_storages=12 needs", "are free in /dev/shm")


# -- the whole command ----------------------------------------------------------------------------------------------


def segments() -> set[str]:
    """torch's; the semaphores of other programs come and go."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


def running(folder: Path, *overrides: str) -> Any:
    """A long run that has saved a checkpoint."""
    process = start(
        *tiny("impala"), "env=catch", "num_train_steps=100000000", "checkpoint_interval=64", *overrides, run_dir(folder)
    )
    wait_for(lambda: process.poll() is not None or list(folder.glob("checkpoints/*/manifest.json")))
    assert len(session_members(process.pid)) >= 4
    return process


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_group_saves_and_ends_everything(signum: int, code: int, tmp_path: Path) -> None:
    process = running(tmp_path)
    begin = time.monotonic()
    os.killpg(process.pid, signum)
    ended = finish(process)
    assert ended.refused(code, f"stopped by signal {signum} at step", "continue with")
    assert time.monotonic() - begin < patience(9)
    assert "started again" not in ended.out
    stopped = newest(tmp_path)["step"]
    resumed = call(f"resume={tmp_path}", f"num_train_steps={stopped + 100}")
    assert resumed.code == 0, resumed.err
    assert stopped + 100 <= newest(tmp_path)["step"] < stopped + 400


@pytest.mark.parametrize("group", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nothing_outlives_a_killed_learner_not_even_an_actor_that_hangs(group: bool, tmp_path: Path) -> None:
    before = segments()
    process = running(tmp_path, "env=gym", "env.id=tests.envs:Hang-v0", "+env.kwargs.after=600")
    time.sleep(1.0)
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL  # and no process of its session is left
    assert segments() <= before
    assert newest(tmp_path)["step"] >= 64


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.02, 0.3])
def test_a_second_sigint_ends_everything_at_once(pause: float, tmp_path: Path) -> None:
    process = running(tmp_path, "env=gym", "env.id=tests.envs:Hang-v0", "+env.kwargs.after=600")
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(pause)  # the actors hang, and the end waits for them
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process).code in (130, -signal.SIGINT)  # the latter where it comes to the end before the signal
    assert time.monotonic() - begin < patience(4)


@pytest.mark.slow
def test_a_suspended_run_does_not_take_its_actors_for_hung(tmp_path: Path) -> None:
    process = running(tmp_path, "agent.actor_timeout=2")
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(5)
    os.killpg(process.pid, signal.SIGCONT)
    time.sleep(3)
    os.kill(process.pid, signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 143
    assert "started again" not in ended.out
