"""DQN's update against the papers' formulas, one transition at a time."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.algorithm import DQN
from hsw.errors import ConfigError
from hsw.network import QNetwork
from hsw.storage import ReplayStorage
from hsw.storage.batches import ReplayBatch

OBS, ACTIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32), gym.spaces.Discrete(4)


def make(dueling: bool = False, **kwargs: Any) -> DQN:
    torch.manual_seed(0)
    policy = QNetwork(OBS, ACTIONS, hidden_sizes=(8,), dueling=dueling, dueling_size=8)
    with torch.no_grad():
        for parameter in policy.target.parameters():  # as after many updates: not the trained network
            parameter += 0.3 * torch.randn_like(parameter)
    return DQN(policy, **kwargs)


def batch_of(rows: int = 12, **changes: Any) -> ReplayBatch:
    torch.manual_seed(1)
    flags = torch.arange(rows) % 3
    batch = ReplayBatch(
        obs=torch.randn(rows, 3),
        actions=torch.arange(rows) % 4,
        rewards=2 * torch.randn(rows),
        next_obs=torch.randn(rows, 3),
        terminateds=flags == 1,
        truncateds=flags == 2,
        discounts=torch.full((rows,), 0.9),
    )
    return replace(batch, **changes)


class Fixed:
    """A storage that gives one batch again and again."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def generate_batches(self, num_mini_batch: int, *args: Any) -> Any:
        while True:
            yield self.batch


def naive_loss(policy: Any, batch: ReplayBatch, double: bool, kind: str) -> Any:
    total: Any = 0.0
    for b in range(len(batch.rewards)):
        with torch.no_grad():
            following = policy.target(batch.next_obs[b : b + 1].double())[0]
            chooser = policy.online(batch.next_obs[b : b + 1].double())[0] if double else following
            best = max(range(4), key=lambda action, chooser=chooser: float(chooser[action]))
            target = float(batch.rewards[b])
            if not batch.terminateds[b]:
                target += float(batch.discounts[b]) * float(following[best])
        error = policy.online(batch.obs[b : b + 1].double())[0, int(batch.actions[b])] - target
        small = kind == "mse" or abs(float(error.detach())) < 1
        total = total + (0.5 * error**2 if small else error.abs() - 0.5)
    return total / len(batch.rewards)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_gradients_are_those_of_the_papers_losses(dueling: bool, double: bool, kind: str) -> None:
    algorithm = make(dueling, lr=0.0, double=double, loss=kind, max_grad_norm=1e9)
    policy, batch = copy.deepcopy(algorithm.policy).double(), batch_of()
    loss = naive_loss(policy, batch, double, kind)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.online.parameters()))])
    info = algorithm.update(Fixed(batch))
    found = algorithm.make_optimizer().param_groups[0]["params"][0].grad.double()
    assert info["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert info["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_dueling_network_adds_the_value_to_advantages_without_their_mean() -> None:
    network = make(dueling=True).policy.online
    obs = torch.randn(5, 3)
    features = network.encoder(obs)
    advantages, value = network.advantages(features), network.value(features)
    expected = torch.stack([value[b, 0] + advantages[b] - sum(advantages[b]) / 4 for b in range(5)])
    torch.testing.assert_close(network(obs), expected)


def test_only_termination_cuts_the_bootstrap() -> None:
    none, every = torch.zeros(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool)
    losses = [
        make().update(Fixed(batch_of(terminateds=ended, truncateds=cut)))["loss"]
        for ended, cut in ((none, none), (none, every), (every, none))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_the_target_follows_every_so_many_updates() -> None:
    algorithm = make(target_interval=3, tau=0.25)
    targets = [parameter.clone() for parameter in algorithm.policy.target.parameters()]
    for update in range(1, 7):
        algorithm.update(Fixed(batch_of()))
        if update % 3 == 0:
            trained = [parameter.detach() for parameter in algorithm.policy.online.parameters()]
            targets = [0.75 * old + 0.25 * new for old, new in zip(targets, trained, strict=True)]
        torch.testing.assert_close(list(algorithm.policy.target.parameters()), targets)


def test_exploration_falls_along_a_line_and_is_saved_with_the_policy() -> None:
    algorithm = make(epsilon_start=1.0, epsilon_end=0.1, epsilon_fraction=0.5)
    for progress, epsilon in ((0.0, 1.0), (0.25, 0.55), (0.5, 0.1), (1.0, 0.1)):
        algorithm.progress = progress
        assert algorithm.update(Fixed(batch_of()))["epsilon"] == pytest.approx(epsilon)
        assert float(algorithm.policy.state_dict()["epsilon"]) == pytest.approx(epsilon)


def test_actions_are_random_as_often_as_epsilon_says_and_greedy_else() -> None:
    policy, obs = make().policy, torch.randn(1, 3).expand(20_000, 3)
    greedy = int(policy.act(obs[:1], deterministic=True)[0])
    policy.epsilon.fill_(0.4)
    actions = policy.act(obs)[0]
    shares = torch.bincount(actions, minlength=4) / len(actions)
    expected = torch.full((4,), 0.1)
    expected[greedy] = 0.7
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)
    policy.epsilon.fill_(0.0)
    assert (policy.act(obs)[0] == greedy).all()


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match="DQN needs Discrete actions"):
        QNetwork(OBS, gym.spaces.Box(-1, 1, (2,)))


def test_a_task_that_only_truncates_is_worth_its_reward_over_one_minus_the_discount() -> None:
    storage = ReplayStorage(OBS, ACTIONS, storage_size=200, batch_size=32, discount=0.9)
    obs = np.ones((1, 3))
    for t in range(200):
        storage.add(obs, [t % 4], 1.0, False, t % 5 == 4, {}, obs)
    algorithm = make(lr=0.01, target_interval=10, loss="mse")
    for _ in range(800):
        algorithm.update(storage)
    torch.testing.assert_close(algorithm.policy.values(torch.ones(1, 3)), torch.full((1, 4), 10.0), atol=0.5, rtol=0)


def test_learns_the_best_arm_of_a_bandit() -> None:
    storage, random = ReplayStorage(OBS, ACTIONS, storage_size=1000, batch_size=64), np.random.default_rng(0)
    for _ in range(1000):
        obs, action = random.uniform(-1, 1, (1, 3)), random.integers(4, size=1)
        storage.add(obs, action, [float(np.append(obs[0], 0.0)[action[0]])], True, False, {}, obs)
    algorithm = make(lr=0.01)
    for _ in range(300):
        algorithm.update(storage)
    obs = torch.rand(300, 3) * 2 - 1
    best = torch.cat([obs, torch.zeros(300, 1)], 1).argmax(1)
    assert float((algorithm.policy.act(obs, deterministic=True)[0] == best).float().mean()) > 0.85
