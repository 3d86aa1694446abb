"""Whatever a run owns is where its networks are. OTHER is a device that only labels tensors: see tests.other_device."""

from __future__ import annotations

import copy
import pickle
import queue
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from hsw.agent import DistributedAgent
from hsw.algorithm import DAAC, PPO, SAC
from hsw.network import ActorCritic
from hsw.spaces import leaves
from hsw.storage import HerReplayStorage, RolloutStorage
from tests.agent.helpers import agent, replay_agent
from tests.helpers import draw
from tests.other_device import CPU, OTHER, WrongDevice, other_device

PLACES = {"device": str(OTHER)}


def on_policy(kind: Any) -> Any:
    built = agent(kind=kind, eval_env=lambda: agent(kind=kind).env, storage=PLACES, eval_episodes=2, **PLACES)
    return built, 2 * 16 * 3


def off_policy(**kwargs: Any) -> Any:
    built = replay_agent(
        storage=PLACES, eval_env=lambda: replay_agent(**kwargs).env, eval_episodes=2, **PLACES, **kwargs
    )
    return built, 20 + 2


AGENTS = {
    "ppo": lambda: on_policy(PPO),
    "daac": lambda: on_policy(DAAC),
    "sac": off_policy,
    "normalised_sac": lambda: off_policy(network={"normalize_obs": True}),
    "her_sac": lambda: off_policy(name="Homing", storage_type=HerReplayStorage),
}


def owned(value: Any) -> list[torch.Tensor]:
    """All tensors in a tree of dicts and lists."""
    if isinstance(value, dict | list | tuple):
        return [tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in owned(part)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("recipe", AGENTS)
def test_an_agent_trains_evaluates_and_resumes_on_another_device(recipe: str) -> None:
    with other_device() as labels:
        one, steps = AGENTS[recipe]()
        one.train(steps)
        assert one.algorithm.num_updates >= 2
        for tensor in (*owned(one.algorithm.state_dict()["optimizers"]), *one.policy.state_dict().values()):
            assert labels[tensor] == OTHER
        state = {key: tree_to_host(value) for key, value in one.state_dict().items()}
        two, _ = AGENTS[recipe]()
        two.load_state_dict(state)
        two.train(2 * steps)
        assert two.algorithm.num_updates >= 4
        assert np.isfinite(two.eval(2)["mean"])


def tree_to_host(value: Any) -> Any:
    """What comes back from a checkpoint: every tensor is the host's."""
    if isinstance(value, dict):
        return {key: tree_to_host(part) for key, part in value.items()}
    if isinstance(value, list):
        return [tree_to_host(part) for part in value]
    return value.cpu().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


@pytest.mark.parametrize("lstm_size", [0, 8])
def test_impala_acts_on_the_host_and_learns_on_another_device(lstm_size: int) -> None:
    with other_device() as labels:
        built = DistributedAgent(
            gym.make("tests.envs:Bandit-v0"),
            num_actors=1,
            num_learners=1,
            num_steps=4,
            num_storages=4,
            batch_size=2,
            num_envs=1,
            hidden_dim=8,
            lstm_size=lstm_size,
            eval_episodes=1,
            **PLACES,
        )
        storage, algorithm = built.storage, built.algorithm
        for _ in range(2):
            free, full = queue.SimpleQueue(), queue.SimpleQueue()
            for slot in (0, 1, None):
                free.put(slot)
            built.run(gym.make("tests.envs:Bandit-v0"), 0, free, full)
            states = storage.init_actor_state_storages
            batch = storage.sample(built.device, 2, free, full, storage.storages, states)
            assert {labels[part] for name, field in batch.items() for part in owned(field)} == {OTHER}
            algorithm.update(OneBatch(batch))
            built._actors.publish()
        assert algorithm.num_updates == 2
        state = tree_to_host(algorithm.state_dict())
        algorithm.load_state_dict(state)
        assert {labels[tensor] for tensor in owned(algorithm.state_dict()["optimizers"]["all"]) if tensor.dim()} == {
            OTHER
        }
        assert np.isfinite(built.eval(1)["mean"])


def small_impala(**kwargs: Any) -> DistributedAgent:
    sizes = {"num_actors": 2, "num_learners": 1, "num_steps": 4, "num_storages": 8, "batch_size": 2, "num_envs": 1}
    return DistributedAgent(gym.make("tests.envs:Bandit-v0"), hidden_dim=8, **{**sizes, **PLACES, **kwargs})


def test_what_an_actors_process_gets_is_the_hosts_and_has_the_learners_weights() -> None:
    with other_device() as labels:
        built = small_impala()
        with torch.no_grad():
            for parameter in built.policy.parameters():
                parameter.add_(0.1)
        built._actors.publish()
        actor = built._actors.actor
        policy = pickle.loads(actor._policy)
        shared = (*leaves(actor.storage.storages), *actor.weights._halves.values(), actor.stats, *policy.parameters())
        assert {labels[part] for part in shared} == {CPU}
        actor.weights.fetch(policy)
        pairs = zip(policy.parameters(), built.policy.parameters(), strict=True)
        assert all(torch.equal(one, other.cpu()) for one, other in pairs)


class LoadsWhenAsked:
    """BatchLoader's face without its threads, of which the labels know nothing."""

    def __init__(self, load: Any, num_threads: int) -> None:
        self.get = lambda check: load()
        self.waited = 0.0

    def start(self) -> None:
        return

    stop = join = start


@pytest.mark.slow
def test_a_pool_of_processes_feeds_a_learner_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsw.agent.actors.BatchLoader", LoadsWhenAsked)
    with other_device() as labels:
        built = small_impala(eval_episodes=1)
        built.train(100)
        assert built.algorithm.num_updates >= 100 // 8
        assert built.step >= 100
        assert {labels[part] for part in built.policy.parameters()} == {OTHER}


class OneBatch:
    """A storage of one batch."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def generate_batches(self, *args: Any, **kwargs: Any) -> Any:
        yield self.batch


def test_convolutions_in_channels_last_memory_learn_on_another_device() -> None:
    with other_device() as labels:
        spaces = Box(0, 255, (3, 36, 36), np.uint8), Box(-1, 1, (2,))
        policy = ActorCritic(*spaces).to(OTHER)
        algorithm, storage = PPO(policy, num_mini_batch=2), RolloutStorage(*spaces, "cpu", 2, 2)
        storage.bind(policy, algorithm)
        rows = [torch.from_numpy(draw(spaces[0], 2, t)) for t in range(3)]
        flags = torch.zeros(2, dtype=torch.bool)
        for t in range(2):
            with torch.no_grad():
                actions, extras = policy.act(rows[t].to(OTHER))
            storage.add(rows[t], actions, torch.ones(2), flags, flags, rows[t + 1], **extras)
        storage.before_gradients(policy, algorithm)
        before = policy.encoder.linear.weight.detach().clone()
        algorithm.update(storage)
        assert not torch.equal(policy.encoder.linear.weight, before)
        assert labels[before] == OTHER


def test_a_storage_that_names_no_device_follows_the_policy() -> None:
    with other_device() as labels:
        built = agent(**PLACES)
        built.train(2 * 16 * 3)
        assert {labels[part] for part in leaves(built.storage.obs)} == {OTHER}


def test_a_storage_that_holds_rows_already_takes_them_along() -> None:
    with other_device() as labels:
        spaces = Box(-1, 1, (4,)), Box(-1, 1, (2,))
        policy, storage = ActorCritic(*spaces), RolloutStorage(*spaces, num_steps=2, num_envs=3)
        obs = torch.randn(2, 3, 4)
        with torch.no_grad():
            actions, extras = policy.act(obs[0])
        flags = torch.zeros(3, dtype=torch.bool)
        storage.add(obs[0], actions, torch.ones(3), flags, flags, obs[1], **extras)
        before = storage.get_all_buffer_data()
        storage.bind(policy.to(OTHER), None)
        after = storage.get_all_buffer_data()
        assert {labels[tensor] for tensor in after.values()} == {OTHER}
        assert all(torch.equal(after[name].cpu(), before[name]) for name in before)


def test_networks_that_move_after_an_update_go_on_learning() -> None:
    with other_device() as labels:
        built = agent()
        built.train(16 * 3)
        assert labels[next(built.policy.parameters())] == CPU
        moved = built.policy.to(OTHER)
        optimizer = built.algorithm.make_optimizer("all")
        flat = optimizer.param_groups[0]["params"][0]
        assert {labels[flat], *(labels[tensor] for tensor in owned(optimizer.state_dict()["state"]))} == {OTHER}
        with torch.no_grad():
            flat.add_(1)
        assert next(moved.parameters()).data_ptr() == flat.data_ptr()


def test_a_tensor_of_an_algorithm_of_ones_own_follows() -> None:
    class Own(SAC):
        def __init__(self, policy: Any, **kwargs: Any) -> None:
            super().__init__(policy, **kwargs)
            self.mean = torch.zeros(3)
            self.parts = {"scales": [torch.ones(2)], "network": torch.nn.Linear(2, 2), "name": "own"}

    with other_device() as labels:
        built = replay_agent(kind=Own, **PLACES)
        algorithm = built.algorithm
        found = [algorithm.log_alpha, algorithm.mean, *owned(algorithm.parts), algorithm.parts["network"].weight]
        assert [labels[tensor] for tensor in found] == [OTHER] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here[there.long()],
        lambda here, there: there.index_select(0, here.long()),
        lambda here, there: here.sum().add_(there.sum()),
        lambda here, there: torch.nn.functional.linear(there, here.view(1, 3)),
        lambda here, there: there.numpy(),
        lambda here, there: np.asarray(there),
        lambda here, there: copy.copy(there.__reduce_ex__(2)),
    ],
)
def test_the_labels_refuse_what_a_device_refuses(wrong: Any) -> None:
    with other_device(), pytest.raises(WrongDevice):
        wrong(torch.arange(3.0), torch.arange(3.0, device=OTHER))


def test_the_labels_allow_what_a_device_allows() -> None:
    with other_device() as labels:
        here, there = torch.arange(3.0), torch.arange(3.0, device=OTHER)
        assert labels[there * here.sum()] == OTHER  # a number of the host's
        assert labels[there[here.long()]] == OTHER
        assert here.copy_(there).tolist() == [0, 1, 2]
        assert [labels[here], labels[there.to("cpu")], labels[here.to(OTHER)]] == [CPU, CPU, OTHER]
        assert labels[there.view(3, 1)[1:]] == OTHER
        parameter = torch.nn.Parameter(there.clone())
        (parameter * 2).sum().backward()
        assert labels[parameter.grad] == OTHER
        assert there[there > 0].numel() == 2
