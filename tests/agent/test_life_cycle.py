"""Once per update: before_gradients, the update from the storage itself, after_gradients; and the policy's modes."""

from __future__ import annotations

import queue
import signal
from typing import Any

import pytest
import torch
from torch import nn

from hsw.agent import OnPolicyAgent
from hsw.agent.publication import SharedWeights
from hsw.algorithm import DAAC, PPO
from hsw.errors import Interrupted
from hsw.network import ActorCritic
from hsw.run.checkpoint import clone_state
from hsw.storage import DistributedStorage, ReplayStorage, RolloutStorage
from tests.agent.helpers import agent, distributed_agent, replay_agent, weights
from tests.env.helpers import make
from tests.helpers import equal
from tests.runs import differences


def stopped_in_update(trained: Any, descents: int, steps: int = 400) -> dict[str, Any]:
    """The state of a run that a signal stops in the update of its nth minibatch."""
    count, descend = [0], trained.algorithm.descend

    def signalled(*args: Any) -> float:
        count[0] += 1
        if count[0] == descents:
            trained.services.signals.requested = signal.SIGTERM
        return float(descend(*args))

    trained.algorithm.descend = signalled
    with pytest.raises(Interrupted):
        trained.train(steps)
    return dict(clone_state(trained.state_dict()))


class Doubling(RolloutStorage):
    """An add-on that changes rewards before the returns are computed."""

    calls = 0

    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        type(self).calls += 1
        self.rewards *= 2
        super().before_gradients(actor, algo, *args)


def doubling_agent() -> OnPolicyAgent:
    trained = agent("Noise", PPO, algorithm={"num_epochs": 3})
    spaces = trained.env.observation_space, trained.env.action_space
    storage = Doubling(*spaces, num_steps=16, num_envs=3)
    return OnPolicyAgent(trained.env, policy=trained.policy, algorithm=trained.algorithm, storage=storage)


def test_what_is_done_before_gradients_is_done_once_also_if_the_update_was_interrupted() -> None:
    Doubling.calls = 0
    straight = doubling_agent()
    straight.train(400)
    once_each = Doubling.calls
    Doubling.calls = 0
    state = stopped_in_update(doubling_agent(), descents=15)
    resumed = doubling_agent()
    resumed.load_state_dict(state)
    resumed.train(400)
    assert Doubling.calls == once_each
    assert differences(straight.state_dict(), resumed.state_dict()) == []


def test_an_interrupted_update_of_a_0_1_checkpoint_values_its_rollout_again() -> None:
    straight = agent("Noise", PPO, algorithm={"num_epochs": 3})
    straight.train(400)
    state = stopped_in_update(agent("Noise", PPO, algorithm={"num_epochs": 3}), descents=15)
    for key in ("prepared", "stopping", "episodes", "callbacks"):
        del state[key]
    del state["storage"]["made"]
    resumed = agent("Noise", PPO, algorithm={"num_epochs": 3})
    resumed.load_state_dict(state)
    resumed.train(400)
    assert equal(weights(resumed), weights(straight))


@pytest.mark.parametrize(
    ("build", "kind", "steps"),
    [(agent, RolloutStorage, 60), (replay_agent, ReplayStorage, 30), (distributed_agent, DistributedStorage, 60)],
    ids=["on_policy", "off_policy", "distributed"],
)
def test_an_update_gets_the_storage_itself_between_its_hooks(build: Any, kind: type, steps: int) -> None:
    trained, told = build(), []
    storage, update = trained.storage, trained.algorithm.update
    before, after = storage.before_gradients, storage.after_gradients

    def updating(given: Any) -> Any:
        assert given is storage
        assert isinstance(given, kind)
        given.mark = len(told)
        told.append("update")
        return update(given)

    storage.before_gradients = lambda *args: (told.append("before"), before(*args))[1]
    storage.after_gradients = lambda *args: (told.append("after"), after(*args))[1]
    trained.algorithm.update = updating
    trained.train(steps)
    assert len(told) >= 3
    assert told == ["before", "update", "after"] * (len(told) // 3)
    assert storage.mark == len(told) - 2


def test_a_batch_of_windows_can_be_drawn_in_parts_and_epochs() -> None:
    trained = distributed_agent()
    seen: list[Any] = []
    trained.algorithm.update = lambda storage: (
        seen.append((storage.batch, list(storage.generate_batches(2, num_epochs=2)))),
        {},
    )[1]
    trained.train(30)
    for whole, parts in seen:
        assert [part.rewards.shape for part in parts] == [(7, 2)] * 4
        for epoch in (parts[:2], parts[2:]):
            columns = torch.cat([part.obs for part in epoch], 1).transpose(0, 1)
            assert all(any(torch.equal(column, other) for other in columns) for column in whole.obs.transpose(0, 1))


# -- modes ----------------------------------------------------------------------------------------------------------


def modes(trained: Any, *methods: str) -> dict[str, set[bool]]:
    """In which modes the policy's methods are called."""
    seen: dict[str, set[bool]] = {name: set() for name in methods}

    def watch(name: str) -> None:
        original = getattr(trained.policy, name)
        setattr(trained.policy, name, lambda *a, **k: (seen[name].add(trained.policy.training), original(*a, **k))[1])

    for name in methods:
        watch(name)
    return seen


@pytest.mark.parametrize("kind", [PPO, DAAC])
def test_on_policy_acts_and_evaluates_in_eval_mode_and_learns_in_train_mode(kind: Any) -> None:
    trained = agent("Noise", kind, eval_env=lambda: make("Noise", 1), eval_interval=50, eval_episodes=1)
    seen = modes(trained, "act", "value" if kind is PPO else "_advantages", "evaluate")
    trained.train(150)
    assert seen["act"] == {False}
    assert seen["evaluate"] == {True}


def test_off_policy_acts_in_eval_mode_and_learns_in_train_mode() -> None:
    trained = replay_agent(eval_env=lambda: make("Aim", 1), eval_interval=30, eval_episodes=1)
    assert modes(trained, "act", "sample") == {"act": set(), "sample": set()}
    seen = modes(trained, "act", "sample")
    trained.train(60)
    assert seen == {"act": {False}, "sample": {True}}


def test_actors_act_in_eval_mode_and_their_learner_learns_in_train_mode() -> None:
    trained = distributed_agent("Noise")
    seen = modes(trained, "unroll")
    trained.train(30)
    assert seen == {"unroll": {True}}
    drop = Dropping(distributed_agent("Noise").policy)
    free, full = queue.Queue(), queue.Queue()  # type: ignore[var-annotated]
    for slot in (0, 1, None):
        free.put(slot)
    other = distributed_agent("Noise", policy=drop.policy)
    other.run(make("Noise", 2), 0, free, full)
    assert other.storage.storages["log_probs"].isfinite().all()


class Dropping:
    """A policy whose encoder fails in train mode."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        policy.encoder.register_forward_pre_hook(refuse_training)


def refuse_training(module: nn.Module, args: Any) -> None:
    assert not module.training


def test_evaluating_leaves_the_mode_as_it_was() -> None:
    trained = agent("Noise", eval_env=lambda: make("Noise", 1))
    for training in (True, False):
        trained.policy.train(training)
        trained.eval(1)
        assert trained.policy.training is training


class Normed(nn.Module):
    """An encoder with batch norm and dropout, whose dropout draws from torch's global generator."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.out_dim = 16
        self.layers = nn.Sequential(nn.Linear(space.shape[0], 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Tanh())

    def forward(self, obs: torch.Tensor) -> Any:
        return self.layers(obs)


def normed_agent() -> OnPolicyAgent:
    torch.manual_seed(0)
    env = make("Noise", 3)
    spaces = env.observation_space, env.action_space
    policy = ActorCritic(*spaces, encoder=Normed)
    algorithm = PPO(policy, num_mini_batch=2, num_epochs=3)
    return OnPolicyAgent(env, policy=policy, algorithm=algorithm, storage=RolloutStorage(*spaces, "cpu", 16, 3))


def test_batch_norm_learns_its_statistics_and_acting_is_deterministic() -> None:
    trained = normed_agent()
    trained.train(100)
    norm = trained.policy.encoder.layers[1]
    assert norm.num_batches_tracked == trained.algorithm.num_updates * 6
    assert not norm.running_mean.eq(0).all()
    trained._set_mode(False)
    obs = torch.randn(5, 2)
    assert torch.equal(trained.policy.value(obs), trained.policy.value(obs))


def test_an_interrupted_update_with_dropout_is_made_again_bit_for_bit() -> None:
    straight = normed_agent()
    straight.train(300)
    state = stopped_in_update(normed_agent(), descents=9, steps=300)
    resumed = normed_agent()
    resumed.load_state_dict(state)
    resumed.train(300)
    assert differences(straight.state_dict(), resumed.state_dict()) == []


def test_the_counts_of_batch_norm_reach_actors_as_they_are() -> None:
    writer, reader = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    writer.num_batches_tracked.fill_(2**24 + 1)  # type: ignore[union-attr, operator]
    shared = SharedWeights(writer)
    shared.publish(writer)
    shared.fetch(reader)
    assert reader.num_batches_tracked == 2**24 + 1
