"""Actors on a Ray cluster whose processes and nodes are lost: replaced, waited for, or the run ends with one sentence.

One cluster at a time; the learner is this process, or a command of its own where it is to be killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsw.agent import DistributedAgent, RayPool
from hsw.errors import ConfigError, WorkersLostError
from hsw.run.guardian import is_zombie
from tests.agent.helpers import batches_of, distributed_agent
from tests.faults.raylets import Nodes, cluster
from tests.faults.test_distributed import at_update, hang_once
from tests.runs import call, finish, newest, patience, run_dir, session_members, start, tiny, wait_for

pytest.importorskip("ray")


def ray_agent(nodes: Nodes | None, env: Any = "Counter", **kwargs: Any) -> DistributedAgent:
    """kwargs: pool holds the pool's settings; the rest is the agent's."""
    options = {"start_timeout": 120.0, "grace": 5.0, **kwargs.pop("pool", {})}
    pool = partial(RayPool, address=nodes.address if nodes else "local", **options)
    return distributed_agent(env, pool=pool, **{"num_steps": 20, **kwargs})


def seats(agent: DistributedAgent) -> list[Any]:
    assert agent._actors.pool is not None
    return agent._actors.pool._seats  # type: ignore[attr-defined]


def workers() -> list[int]:
    """The processes of actors of this class, of whatever cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::RayActor"):
                found.append(int(path.parent.name))
    return found


def raylets_of(session: int) -> list[int]:
    """The processes of a local cluster whose driver leads this session."""
    return [pid for pid in session_members(session) if pid != session]


def runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}") and not is_zombie(pid)


def lives(agent: DistributedAgent) -> int:
    return sum(seat.lives for seat in seats(agent))


class Clock:
    """Measures from a fault until all actors work again."""

    def __init__(self, agent: DistributedAgent, name: str) -> None:
        self.agent, self.name, self.before = agent, name, lives(agent)
        self.begin, self.noticed, self.seconds = time.monotonic(), 0.0, 0.0

    def look(self) -> bool:
        """Whether they do; each update asks."""
        passed = time.monotonic() - self.begin
        if not self.noticed and lives(self.agent) > self.before:
            self.noticed = passed
        if not self.seconds and self.noticed and all(seat.alive for seat in seats(self.agent)):
            self.seconds = passed
            print(f"\n{self.name}: noticed after {self.noticed:.1f} s, replaced after {self.seconds:.1f} s")
        return bool(self.seconds)


def train_until(agent: DistributedAgent, fault: Callable[[], Clock], seconds: float = 120.0) -> Clock:
    """Train, do something after the third update, and end some updates after all actors work again."""
    clocks: list[Clock] = []
    at_update(agent, 3, lambda: clocks.append(fault()))
    original, after = agent.algorithm.update, []

    def update(storage: Any) -> Any:
        info = original(storage)
        if clocks and clocks[0].look():
            after.append(agent.step)
        assert not clocks or time.monotonic() - clocks[0].begin < seconds, "nobody came back"
        if len(after) > 10:
            agent.request_stop("all work again")
        return info

    agent.algorithm.update = update  # type: ignore[method-assign]
    agent.train(10**7)
    return clocks[0]


def whole(batches: list[Any]) -> None:
    """Every rollout is one actor's, by one version, without a gap."""
    for batch in batches:
        assert (batch.versions[:-1] == batch.versions[0]).all()
        led = (batch.obs[:-1, ..., 0] + 1) * batch.valid[:-1]
        assert (batch.obs[1:, ..., 0] == led).all()


# -- one quick test of the whole ------------------------------------------------------------------------------------


def test_a_local_cluster_trains_and_replaces_a_killed_actor_and_leaves_nothing() -> None:
    before = set(workers())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    agent = ray_agent(None, num_actors=1)
    seen, killed = batches_of(agent), []

    def kill() -> Clock:
        killed.extend(set(workers()) - before)
        clock = Clock(agent, "local actor killed")
        os.kill(killed[0], signal.SIGKILL)
        return clock

    clock = train_until(agent, kill)
    assert clock.seconds < 30
    assert len(killed) == 1
    assert agent.num_episodes > 0
    whole(seen)
    starts = [tuple(map(int, batch.versions[0])) for batch in seen]
    assert max(map(max, starts)) > 1, "no newer weights came to the actor"
    wait_for(lambda: set(workers()) <= before, 10)
    assert {number: signal.getsignal(number) for number in handlers} == handlers


# -- without a cluster ----------------------------------------------------------------------------------------------


def test_an_address_where_no_cluster_is_is_refused_at_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for wrong, words in (
            (address, "no Ray cluster answers"),
            ("ray://x:1", "Ray Client's"),
            ("x", "answers there"),
        ):
            with pytest.raises(ConfigError, match=words):
                agent = distributed_agent(pool=partial(RayPool, address=wrong))
                agent.train(100)
    assert time.monotonic() - begin < patience(19)


@pytest.mark.slow
def test_a_port_of_something_else_is_refused(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))  # Ray takes 127.0.0.1 for this machine's address
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        refused = call(*tiny("impala"), "env=catch", "pool=ray", f"pool.address={address}", run_dir(tmp_path))
    assert refused.refused(2, f"pool.address={address}", "no Ray cluster that this process may join")


# -- with one -------------------------------------------------------------------------------------------------------


def own_workers(before: set[int]) -> list[int]:
    return sorted(set(workers()) - before)


def waits(agent: DistributedAgent) -> bool:
    """All slots are full, so that actors wait for some."""
    return not any(seat.slots for seat in seats(agent))


def collects(agent: DistributedAgent) -> bool:
    return all(seat.calls for seat in seats(agent))


def publishes(agent: DistributedAgent) -> bool:
    agent._actors.publish()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("moment", [waits, collects, publishes])
@pytest.mark.parametrize("what", ["process", "node"])
def test_a_lost_actor_or_node_is_replaced_at_any_moment(what: str, moment: Any) -> None:
    before = set(workers())
    with cluster(0, 1, 1) as nodes:
        # The learner takes none meanwhile: they have to be filled while a node joins, or must not be.
        agent = ray_agent(nodes, num_steps=400, num_storages=12 if moment is waits else 400)
        seen = batches_of(agent)

        def fault() -> Clock:
            if what == "node":
                nodes.add(1)  # where its actor finds a place
            wait_for(lambda: moment(agent), 30)
            clock = Clock(agent, f"{what} lost while it {moment.__name__}")
            if what == "process":
                os.kill(own_workers(before)[0], signal.SIGKILL)
            else:
                nodes.lose(nodes.nodes[0])
            return clock

        clock = train_until(agent, fault)
        assert clock.seconds < 30
        assert agent._actors.pool is None
        whole(seen)
        wait_for(lambda: not own_workers(before), 20)


@pytest.mark.slow
def test_a_lost_nodes_actors_wait_for_one_that_joins_and_the_others_go_on(caplog: Any) -> None:
    with cluster(0, 1, 1) as nodes:
        agent = ray_agent(nodes)
        steps: list[int] = []

        def fault() -> Clock:
            clock = Clock(agent, "node added late")
            nodes.lose(nodes.nodes[0])
            return clock

        clocks: list[Clock] = []
        at_update(agent, 3, lambda: clocks.append(fault()))
        original = agent.algorithm.update

        def update(storage: Any) -> Any:
            info = original(storage)
            steps.append(agent.step)
            if clocks and len(nodes.nodes) == 2 and time.monotonic() - clocks[0].begin > 25:
                nodes.nodes.append(nodes.add(1))
            if clocks and len(nodes.nodes) == 3 and clocks[0].look():
                agent.request_stop("all work again")
            assert not clocks or time.monotonic() - clocks[0].begin < 150
            return info

        agent.algorithm.update = update  # type: ignore[method-assign]
        agent.train(10**7)
    assert len(steps) > 20
    assert re.search(r"1 of 2 actors are not there: each needs 1 CPU, and the cluster has 2 nodes", caplog.text)
    assert "the run goes on with the others" in caplog.text


@pytest.mark.slow
def test_without_any_node_the_run_waits_says_what_is_missing_and_ends() -> None:
    with cluster(0, 1, 1) as nodes:
        agent = ray_agent(nodes, pool={"start_timeout": 60.0})

        def fault() -> None:
            for node in nodes.nodes:
                nodes.lose(node)

        at_update(agent, 3, fault)
        begin = time.monotonic()
        with pytest.raises(WorkersLostError, match=r"2 of 2 actors are not there.* 1 node with 0 CPUs"):
            agent.train(10**7)
        print(f"\nall nodes lost: ended after {time.monotonic() - begin:.1f} s")
        assert time.monotonic() - begin < patience(179)
        assert agent._actors.pool is None


@pytest.mark.slow
def test_a_head_that_is_gone_ends_the_run_with_code_5(tmp_path: Path) -> None:
    with cluster(0, 1, 1) as nodes:
        process = running(tmp_path, nodes.address)
        nodes.lose_head()
        ended = finish(process, 180)
    assert ended.refused(5, "the head of the Ray cluster at", "does not answer")


@pytest.mark.slow
def test_too_few_cpus_from_the_start_end_the_run_with_code_5(tmp_path: Path) -> None:
    with cluster(1) as nodes:
        few = (f"pool.address={nodes.address}", "pool.start_timeout=25", "agent.num_actors=3")
        process = start(*tiny("impala"), "env=catch", "pool=ray", "num_train_steps=10000000", *few, run_dir(tmp_path))
        ended = finish(process, 150)
    assert ended.refused(5, "2 of 3 actors are not there: each needs 1 CPU", "1 node with 1 CPUs, 0 of them free")


@pytest.mark.slow
def test_an_actor_that_hangs_is_killed_and_replaced(tmp_path: Path, caplog: Any) -> None:
    with cluster(2) as nodes:
        agent = ray_agent(nodes, partial(hang_once, tmp_path / "hung"), actor_timeout=3.0, num_actors=1)
        agent.train(3000)
    assert agent.step >= 3000
    assert "has not made a step for 3 s; it is started again, and 9 restarts are left" in caplog.text


@pytest.mark.slow
def test_actors_that_fail_again_and_again_end_the_run_with_the_first_error() -> None:
    with cluster(2) as nodes:
        agent = ray_agent(nodes, "StepRaises", env_kwargs={"after": 40}, max_restarts=1)
        with pytest.raises(WorkersLostError, match=r"max_restarts=1 makes good.* step raised RuntimeError") as caught:
            agent.train(10**6)
    assert "Traceback" in caught.value.details


@pytest.mark.slow
def test_a_full_object_store_holds_actors_back_and_ends_nothing() -> None:
    with cluster(2) as nodes:
        agent, kept = ray_agent(nodes, num_steps=400), []

        def fill() -> None:
            import ray

            for _ in range(12):  # held, and so not to be dropped: twice what the store takes
                kept.append(ray.put(np.zeros(4_000_000)))

        at_update(agent, 3, fill)
        agent.train(40_000)
        assert agent.step >= 40_000
        assert len(kept) == 12
        kept.clear()


# -- the whole command ----------------------------------------------------------------------------------------------


def running(folder: Path, address: str) -> Any:
    """A long run that has saved a checkpoint."""
    process = start(
        *(*tiny("impala"), "env=catch", "pool=ray", f"pool.address={address}", "agent.num_actors=2"),
        *("num_train_steps=100000000", "checkpoint_interval=64", run_dir(folder)),
    )
    wait_for(lambda: process.poll() is not None or list(folder.glob("checkpoints/*/manifest.json")), 150)
    assert process.poll() is None, process.communicate()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True])
def test_sigterm_saves_and_ends_with_143_and_a_local_cluster_ends_too(group: bool, tmp_path: Path) -> None:
    before = set(workers())
    process = running(tmp_path, "local")
    own = raylets_of(process.pid) + own_workers(before)
    assert os.getpgid(process.pid) not in map(os.getpgid, own)
    begin = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
    ended = finish(process)
    print(f"\nSIGTERM: ended after {time.monotonic() - begin:.1f} s")
    assert ended.refused(143, "stopped by signal 15 at step", "continue with")
    wait_for(lambda: not any(map(runs, own)), 10)
    assert newest(tmp_path)["step"] >= 64
    assert "ray" not in ended.out.lower().replace("pool=ray", "").replace("ray cluster", "")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["local", "cluster"])
def test_nothing_outlives_a_killed_learner(address: str, tmp_path: Path) -> None:
    before = set(workers())
    with cluster(2) if address == "cluster" else contextlib.nullcontext() as nodes:
        process = running(tmp_path, nodes.address if nodes else "local")
        wait_for(lambda: len(own_workers(before)) == 2, 60)  # one saves before the other has come
        own = raylets_of(process.pid) + own_workers(before)
        begin = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not any(map(runs, own)), 30)
        assert [Path(f"/proc/{pid}/cmdline").read_bytes()[:200] for pid in own if runs(pid)] == []
        print(f"\nlearner killed ({address}): nothing left after {time.monotonic() - begin:.1f} s")
        finish(process)


@pytest.mark.slow
def test_a_cluster_gets_the_code_of_hsw_and_nothing_else(tmp_path: Path) -> None:
    """Nothing of the learner's working folder, nor of what is beside the package."""
    before = set(workers())
    with cluster(2) as nodes:
        process = running(tmp_path, nodes.address)
        environ = Path(f"/proc/{own_workers(before)[0]}/environ").read_bytes().decode(errors="replace")
        path = re.search(r"PYTHONPATH=([^\0]*)", environ)
        assert path
        shipped = [Path(part) for part in path[1].split(":") if "_ray_pkg_" in part]
        os.kill(process.pid, signal.SIGTERM)
        finish(process)
    assert [child.name for folder in shipped for child in folder.iterdir()] == ["hsw"]
