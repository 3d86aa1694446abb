"""Sweeps on Ray: jobs keep their folders and the table, and survive processes, nodes and drivers that are killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.config_store import ConfigStore

import hsw
from hsw.agent.ray_cluster import RayCluster
from hsw.config.files import conf_folder
from hsw.config.hydra_versions import VERSION_BASE
from hsw.run import guardian
from hsw.sweep.ray_task import job_environment, package, run_there
from hydra_plugins.hsw_sweep import RayLauncher
from tests.runs import TINY, call, differences, finish, newest, start, wait_for
from tests.sweep.sweeps import (
    EIGHT,
    LONG,
    MIDDLE,
    assert_same_sweep,
    done,
    half_way,
    process_of,
    saved,
    sweep_dir,
    table,
)

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

RAY = ("--multirun", "hydra/launcher=ray")
HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}


class Nodes:
    """A head and a second node, with one CPU each."""

    def __init__(self) -> None:
        small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={**small, "include_dashboard": False, "_system_config": HEALTH}
        )
        self.second = self.cluster.add_node(**small)
        self.raylet_of_second = self.second.all_processes["raylet"][0].process.pid
        self.on = (*RAY, f"hydra.launcher.address={self.cluster.address}")


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    try:
        yield found
    finally:
        found.cluster.shutdown()


@pytest.mark.slow
def test_jobs_on_a_ray_of_this_machine_leave_what_a_plain_sweep_does(tmp_path: Path) -> None:
    seeds = (*TINY, "seed=1,2")
    assert call("--multirun", *seeds, sweep_dir(tmp_path / "plain")).code == 0
    local = (*RAY, "hydra.launcher.address=local", *seeds, sweep_dir(tmp_path / "ray"))
    result = finish(start(*local), 120)
    assert result.code == 0, result.err
    assert_same_sweep(tmp_path / "plain", tmp_path / "ray")
    assert not list((tmp_path / "ray").glob(".notes*"))


@pytest.mark.slow
def test_a_lost_node_and_a_killed_process_change_nothing(nodes: Nodes, whole: Path, tmp_path: Path) -> None:
    process = start(*nodes.on, *EIGHT, sweep_dir(tmp_path))
    killed = half_way(process, tmp_path, 1)
    os.kill(process_of(tmp_path, killed) or 0, signal.SIGKILL)

    def on_second() -> bool:
        there = [process_of(tmp_path, job) for job in saved(tmp_path, MIDDLE)]
        return any(pid and parent_of(pid) == nodes.raylet_of_second for pid in there)

    wait_for(lambda: process.poll() is not None or (done(tmp_path) >= 3 and on_second()), 300)
    before = done(tmp_path)
    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
    result = finish(process, 600)
    assert result.code == 0, result.err
    assert 3 <= before <= 6
    assert (result.err + result.out).count("is queued again") == 2
    assert "resumed at step" in (tmp_path / killed / "train.log").read_text()
    assert_same_sweep(whole, tmp_path)


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_worker_and_the_same_command_goes_on(
    nodes: Nodes, whole: Path, tmp_path: Path
) -> None:
    process = start(*nodes.on, *EIGHT, sweep_dir(tmp_path))
    half_way(process, tmp_path, 1)
    jobs = [pid for number in range(1, 9) if (pid := process_of(tmp_path, f"seed-{number}"))]
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: all(guardian.is_zombie(pid) for pid in jobs), 5)
    assert finish(process).code == -signal.SIGKILL
    result = finish(start(*nodes.on, *EIGHT, sweep_dir(tmp_path)), 600)
    assert result.code == 0, result.err
    assert "done before" in result.out
    assert not list(tmp_path.glob(".notes*"))
    for row in table(whole):
        assert differences(newest(whole / row["job"])["policy"], newest(tmp_path / row["job"])["policy"]) == []


@pytest.mark.slow
def test_a_job_sees_its_runtime_env_and_no_gpu_that_it_did_not_ask_for(nodes: Nodes, tmp_path: Path) -> None:
    code = {"py_modules": package(tmp_path)}
    cluster = RayCluster(nodes.cluster.address, "address", code, job_environment({"env_vars": {"SIZE": "3"}}))
    try:
        seen = cluster.ray.get(cluster.ray.remote(where).remote())
    finally:
        cluster.close()
    assert seen["SIZE"] == "3"
    assert seen["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["hsw"] != str(Path(hsw.__file__).parent)  # the one that was shipped
    assert (seen["conf"], seen["plugins"]) == (True, True)


def where() -> dict[str, Any]:
    """What a worker has."""
    shipped = {place: Path(place, "hsw") for place in sys.path if "_ray_pkg" in place}
    package = next(path for path in shipped.values() if path.is_dir())
    plugins = any(Path(place, "hydra_plugins", "hsw_sweep.py").is_file() for place in shipped)
    return {**os.environ, "hsw": str(package), "conf": (package / "conf" / "config.yaml").is_file(), "plugins": plugins}


@pytest.mark.slow
def test_a_ray_of_this_machine_ends_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    process = start(*RAY, "hydra.launcher.address=local", *EIGHT, sweep_dir(tmp_path))
    wait_for(lambda: process.poll() is not None or saved(tmp_path), 300)
    mark = guardian.own_mark(process.pid)

    def family() -> list[int]:
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if mark in guardian.marks_of(pid)]

    assert len(family()) > 3
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not family(), 5)
    finish(process)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_jobs_of_every_node_and_the_same_command_goes_on(
    signum: signal.Signals, nodes: Nodes, tmp_path: Path
) -> None:
    command = (*nodes.on, *LONG, "seed=1,2,3", "num_train_steps=1000000", sweep_dir(tmp_path))
    process = start(*command)
    wait_for(lambda: process.poll() is not None or len(saved(tmp_path)) == 2, 300)
    os.kill(process.pid, signum)
    assert finish(process, 120).refused(128 + signum, f"stopped by signal {signum.value}")
    assert [row["status"] for row in table(tmp_path)] == ["interrupted", "interrupted", "not started"]
    before = {job: newest(tmp_path / job)["step"] for job in saved(tmp_path)}
    again = finish(start(*nodes.on, *LONG, "seed=1,2,3", f"num_train_steps={max(before.values())}", command[-1]), 300)
    assert again.code == 0, again.err
    for job in before:
        assert f"resumed at step {before[job]}" in (tmp_path / job / "train.log").read_text()


@pytest.mark.slow
def test_a_job_that_cannot_be_and_one_that_dies_again_and_again_fail_alone(nodes: Nodes, tmp_path: Path) -> None:
    dies = ("env.id=CartPole-v1,tests.envs:Dies-v0", "hydra.launcher.max_retries=1")
    result = finish(start(*nodes.on, *TINY, "env=gym", *dies, "algorithm.lr=1e-3,-1", sweep_dir(tmp_path)), 300)
    assert result.refused(2, "3 of 4 jobs failed", "algorithm.lr=-1 must be")
    rows = table(tmp_path)
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "failed"]
    assert [row["exit_code"] for row in rows] == ["0", "2", "5", "2"]
    assert "its process died 2 times" in rows[2]["note"]


@pytest.mark.slow
def test_too_few_resources_are_named_and_waited_for_only_so_long(nodes: Nodes, tmp_path: Path) -> None:
    wants = ("hydra.launcher.num_cpus=2", "hydra.launcher.start_timeout=3", *TINY, "seed=1,2", sweep_dir(tmp_path))
    missing = ("no job could run for 3 s", "takes 2 CPUs and 0 GPUs of one node", "the 2 nodes have 1 and 0")
    assert finish(start(*nodes.on, *wants), 120).refused(5, *missing, "hydra.launcher.num_cpus")
    process = start(*nodes.on, *wants, "hydra.launcher.start_timeout=200")
    time.sleep(5)
    nodes.cluster.add_node(num_cpus=2, object_store_memory=100_000_000)
    assert finish(process, 300).code == 0
    assert [row["status"] for row in table(tmp_path)] == ["done", "done"]


def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = call(*RAY, f"hydra.launcher.address={address}", *TINY, "seed=1,2", sweep_dir(tmp_path))
    assert result.refused(2, f"hydra.launcher.address={address}", "no Ray cluster answers there", "ray start --head")
    result = call(*RAY, "hydra.launcher.address=ray://here:1", *TINY, "seed=1,2", sweep_dir(tmp_path))
    assert result.refused(2, "is Ray Client's", "host:port")


def test_without_ray_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more))
    result = call(*RAY, *TINY, "seed=1,2", sweep_dir(tmp_path / "study"))
    assert result.refused(2, "pip install 'hsw[ray]'")
    assert not (tmp_path / "study").exists()


def test_a_node_that_does_not_see_the_folder_is_told(tmp_path: Path) -> None:
    told = run_there(None, None, tmp_path / "elsewhere", "token")  # type: ignore[arg-type]
    assert told is not None
    assert f"does not see {tmp_path}" in told
    assert "hydra.sweep.dir=<folder>" in told


@pytest.mark.skipif("version_base" in VERSION_BASE, reason="with Hydra 1.3 no other can be installed")
def test_the_launcher_is_hsws_own_also_beside_another_of_that_name() -> None:
    store = ConfigStore.instance()
    other = {"_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", "ray": {}}
    store.store(group="hydra/launcher", name="ray", node=other, provider="ray_launcher")
    try:
        with hydra.initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
            composed = hydra.compose("config", ["hydra/launcher=ray"], return_hydra_config=True).hydra.launcher
    finally:
        del store.repo["hydra"]["launcher"]["ray.yaml"]
    parameters = set(signature(RayLauncher).parameters)
    assert composed._target_ == f"{RayLauncher.__module__}.{RayLauncher.__qualname__}"
    assert set(composed) == {"_target_", *parameters}
    assert all(composed[name] == p.default for name, p in signature(RayLauncher).parameters.items())
