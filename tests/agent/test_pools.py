"""Pools of actors: what a config may say of them, what travels to another machine, and what comes back."""

from __future__ import annotations

import builtins
import copy
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hsw.agent import ProcessPool, RayPool, ray_actor
from hsw.agent.publication import SharedWeights, fill
from hsw.agent.ray_actor import RayActor, rollouts_of, take_over
from hsw.agent.ray_cluster import shipped
from hsw.agent.seats import Crew
from hsw.config.compatibility import check_pool
from hsw.config.resolved import check
from hsw.errors import ConfigError
from hsw.storage import DistributedStorage
from tests.agent.helpers import distributed_agent
from tests.runs import call, compose, rows, run_dir, tiny_run

# -- the config -----------------------------------------------------------------------------------------------------


def test_a_pool_for_an_agent_without_actors_is_refused_with_what_to_do() -> None:
    for pool in ("ray", "processes"):
        for agent in ("ppo", "sac env=pendulum"):
            with pytest.raises(ConfigError, match="has none; leave pool out, or take an agent with actors"):
                check(compose(f"pool={pool}", *f"agent={agent}".split()))


def test_the_recipe_takes_processes_and_an_explicit_pool_wins_in_any_order() -> None:
    assert compose("agent=impala").pool._target_ == "hsw.agent.ProcessPool"
    for order in (("agent=impala", "pool=ray"), ("pool=ray", "agent=impala")):
        assert compose(*order).pool._target_ == "hsw.agent.RayPool"
    assert compose().pool is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pool.adress=auto", "no pool.adress; did you mean pool.address"),
        ("pool.num_cpus_per_actor=0", "pool.num_cpus_per_actor=0 must be"),
        ("pool.start_timeout=soon", "pool.start_timeout=soon must be a number"),
    ],
)
def test_a_pools_settings_are_checked(override: str, message: str) -> None:
    refused = call("agent=impala", "env=catch", "pool=ray", override)
    assert refused.code == 2
    assert all(word in refused.sentence for word in message.split("; ")), refused.err


def test_without_ray_its_pool_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    original = builtins.__import__

    def without_ray(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    refused = call(*tiny_run("impala"), "pool=ray", run_dir(tmp_path / "run"))
    assert refused.refused(2, "pip install 'hsw[ray]'", "pool=processes")


class Filling:
    """A pool of somebody's own: its one actor runs in the learner's process, whenever a slot is wanted."""

    failure = None

    def __init__(self, crew: Crew, settings: int = 3) -> None:
        self.crew, self.settings, self.free, self.full = crew, settings, list(range(crew.num_slots)), []
        self.published = 0

    def start(self) -> None:
        self.collector = self.crew.actor.collector(self.crew.actor.live(self.crew.seed, 0, (self.crew.session, 0)))

    def get(self) -> int:
        if not self.full:
            slots, self.free = self.free[: self.crew.num_envs], self.free[self.crew.num_envs :]
            with self.collector.acting():
                self.collector.begin(slots, self.crew.actor.weights.fetch(self.collector.policy))
                while not self.collector.step():
                    pass
            self.full = slots
        return self.full.pop(0)

    def put(self, slot: int) -> None:
        self.free.append(slot)

    def publish(self) -> None:
        self.published += 1

    def statistics(self) -> dict[str, float]:
        return {"actors": 1.0, "restarts": 0.0, "rows": 0.0, "waited": 0.0, "own": float(self.published)}

    def close(self) -> None:
        self.crew.actor.closed = True  # type: ignore[attr-defined]


def test_a_pool_of_somebodys_own_needs_the_members_and_nothing_else(tmp_path: Path) -> None:
    agent = distributed_agent("Counter", pool=Filling, folder=tmp_path, log_interval=50)
    agent.train(300)
    assert agent.step >= 300
    assert agent._actors.actor.closed  # type: ignore[attr-defined]
    figures = [row for row in rows(tmp_path) if "pool/own" in row]
    assert figures
    assert figures[0]["pool/actors"] == 1
    assert figures[0]["pool/own"] > 0
    with pytest.raises(ConfigError, match="SimpleNamespace cannot be the pool: it has no start, put, get"):
        distributed_agent("Counter", pool=lambda crew: SimpleNamespace()).train(100)
    lacking = type("Lacking", (), {"start": None})
    with pytest.raises(ConfigError, match="Lacking cannot be the pool: it has no put, get"):
        check_pool({"agent": type(agent), "pool": lacking})
    for kind in (Filling, ProcessPool, RayPool):
        check_pool({"agent": type(agent), "pool": kind})


# -- trust ----------------------------------------------------------------------------------------------------------


def test_a_resume_connects_to_no_address_that_a_folder_names(tmp_path: Path) -> None:
    done = call(*tiny_run("impala"), run_dir(tmp_path))
    assert done.code == 0, done.err
    path = tmp_path / "config.yaml"
    text = path.read_text()
    assert "_target_: hsw.agent.ProcessPool" in text
    named = text.replace("hsw.agent.ProcessPool", "hsw.agent.RayPool\n  address: 192.0.2.1:6379")
    path.write_text(named)
    refused = call(f"resume={tmp_path}", "num_train_steps=500")
    assert refused.refused(2, "connects to no address that a run folder names", "pool=ray pool.address=192.0.2.1:6379")
    taken = call(f"resume={tmp_path}", "num_train_steps=300", "pool=processes")
    assert taken.code == 0, taken.err


def test_only_code_is_shipped_and_only_of_packages_that_are_not_installed(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "own_module.py").touch()
    (tmp_path / "data.bin").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    folders = shipped(["own_package", "own_module", "numpy", "own_package"])["py_modules"]
    assert [Path(folder).name for folder in folders] == ["hsw", "own_package", "own_module.py"]
    with pytest.raises(ConfigError, match="no package nowhere to ship"):
        shipped(["nowhere"])


# -- what travels ---------------------------------------------------------------------------------------------------


def test_weights_of_any_type_go_through_one_array_of_bytes() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.Linear(5, 5, dtype=torch.bfloat16), nn.BatchNorm2d(3), nn.Linear(3, 3).double()]
    writer: Any = nn.Sequential(*parts)
    reader = copy.deepcopy(writer)
    for tensor in (*writer.parameters(), *writer.buffers()):
        tensor.data.copy_(torch.rand(tensor.shape) * 50)
    shared = SharedWeights(writer)
    shared.publish(writer)
    version, flat = shared.flat()
    assert (version, flat.ndim) == (1, 1)
    assert len(flat) == shared.num_bytes
    flat.flags.writeable = False  # as Ray hands it over
    fill(reader, flat)
    assert all(map(torch.equal, writer.state_dict().values(), reader.state_dict().values()))


def flat(fields: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a tree, by the names on the way to them."""
    found: dict[str, Any] = {}
    for name, part in fields.items():
        inner = flat(part) if isinstance(part, dict) else {"": part}
        found |= {f"{name}.{key}": array for key, array in inner.items()}
    return found


@pytest.mark.parametrize(("env", "lstm_size"), [("Noise", 0), ("Noise", 5), ("Goal", 0)])
def test_an_actor_elsewhere_brings_what_one_with_shared_memory_writes(env: str, lstm_size: int) -> None:
    agent = distributed_agent(env, lstm_size=lstm_size)
    actors, storage = agent._actors, agent.storage
    actors.publish()
    recipe, life = actors.actor.elsewhere(2), (3, 1)
    travelled = pickle.dumps(recipe)
    assert len(travelled) < 200_000, "memory travels too"
    remote = RayActor(pickle.loads(travelled), 1, 0, life)
    replies = [remote.collect(*actors.weights.flat()) for _ in range(3)]
    here = actors.actor.collector(actors.actor.live(1, 0, life))
    other: Any = DistributedStorage(agent.env.observation_space, agent.env.action_space, "cpu", 6, 16, 4)
    other.init_tensors({"init_actor_states": here.initial_state})
    for reply in replies:
        assert reply.error is None
        assert (reply.life, reply.rows) == (1, 6)
    # Replies share the actor's memory until they are sent, so only the last may be looked at here.
    for slots in ([4, 9], [0, 1], [15, 2]):
        with here.acting():
            here.begin(slots, actors.weights.fetch(here.policy))
            while not here.step():
                pass
    take_over(other, [15, 2], replies[-1].rollouts)
    written, brought = rollouts_of(storage), rollouts_of(other)
    for name, block in flat(written["fields"]).items():
        assert (block[[15, 2]] == flat(brought["fields"])[name][[15, 2]]).all(), name
    for part, new in zip(written["core"], brought["core"], strict=True):
        assert (part[:, [15, 2]] == new[:, [15, 2]]).all()


def test_a_long_rollout_answers_in_pieces_and_keeps_its_version(monkeypatch: Any) -> None:
    monkeypatch.setattr(ray_actor, "PULSE", 0.0)
    agent = distributed_agent("Counter")
    agent._actors.publish()
    remote, replies = RayActor(agent._actors.actor.elsewhere(2), 1, 0, (0, 1)), []
    for _ in range(6):
        agent._actors.publish()  # newer weights, which are not for what has begun
        replies.append(remote.collect(*agent._actors.weights.flat()))
    assert [reply.rows for reply in replies] == [1] * 6
    assert [reply.rollouts is None for reply in replies] == [True] * 5 + [False]
    versions = replies[-1].rollouts["fields"]["versions"][:, :-1]
    assert (versions == versions.min()).all()
    assert versions.min() == agent._actors.version - 5


def test_an_actor_elsewhere_tells_its_error_and_lives_on_to_be_replaced() -> None:
    for name, message in (("StepRaises", "the simulator fell over"), ("SysExit", "SystemExit")):
        agent = distributed_agent(name, env_kwargs={"after": 3})
        agent._actors.publish()
        reply = RayActor(agent._actors.actor.elsewhere(2), 1, 0, (0, 1)).collect(*agent._actors.weights.flat())
        assert reply.rollouts is None
        assert message in reply.error[0]
        assert "Traceback" in reply.error[1]
