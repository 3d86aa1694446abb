"""SAC's update against the paper's formulas, one transition at a time."""

import copy
import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.algorithm import SAC
from hsw.errors import NonFiniteError
from hsw.network import SoftActorCritic
from hsw.storage import ReplayStorage
from hsw.storage.replay import ReplayBatch

OBS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gym.spaces.Box(-2, 2, (2,), np.float32)


def make(**kwargs):
    policy = SoftActorCritic(OBS, ACTIONS, hidden_sizes=(8,), activation="tanh")
    return SAC(policy, **kwargs)


def batch_of(rows=6, **changes):
    flags = torch.arange(rows) % 3
    batch = ReplayBatch(
        obs=torch.randn(rows, 3),
        actions=torch.rand(rows, 2) * 4 - 2,
        rewards=torch.randn(rows),
        next_obs=torch.randn(rows, 3),
        terminateds=flags == 1,
        truncateds=flags == 2,
        discounts=torch.full((rows,), 0.9),
    )
    return replace(batch, **changes)


class Fixed:
    """A storage that gives one batch again and again."""

    def __init__(self, batch):
        self.batch = batch

    def generate_batches(self, num_mini_batch, *args):
        while True:
            yield self.batch


def noises(rows, seed):
    """The two draws of an update, for the next observations and for the present ones."""
    torch.manual_seed(seed)
    return torch.randn(rows, 2), torch.randn(rows, 2)


def naive_sample(policy, obs, noise):
    """tanh of a Gaussian's draw, and its log-density by the change of variables, in float64."""
    mean, log_std = policy.actor(obs).chunk(2)
    std = log_std.clamp(-20, 2).exp()
    action, log_prob = [], 0
    for i in range(len(mean)):
        u = mean[i] + noise[i] * std[i]
        action.append(torch.tanh(u))
        log_prob = log_prob - noise[i] ** 2 / 2 - torch.log(std[i]) - math.log(2 * math.pi) / 2
        log_prob = log_prob - torch.log(1 - torch.tanh(u) ** 2)
    return torch.stack(action), log_prob


def naive_update(algorithm, batch, noise_next, noise):
    """Gradient descent's three losses, summed over transitions in plain Python, each on the networks as they are."""
    policy = copy.deepcopy(algorithm.policy).double()
    alpha = math.exp(float(algorithm.log_alpha.detach()))
    rows = len(batch.rewards)
    q = lambda critic, obs, action: critic(torch.cat([obs, action])[None])[0, 0]
    critic_loss = actor_loss = entropy = 0.0
    for b in range(rows):
        obs, next_obs = batch.obs[b].double(), batch.next_obs[b].double()
        with torch.no_grad():
            next_action, next_log_prob = naive_sample(policy, next_obs, noise_next[b].double())
            next_value = min(q(critic, next_obs, next_action) for critic in policy.target_critics)
            target = float(batch.rewards[b])
            if not batch.terminateds[b]:
                target += float(batch.discounts[b]) * (next_value - alpha * next_log_prob)
        action = batch.actions[b].double() / 2  # [-2, 2] as [-1, 1]
        for critic in policy.critics:
            critic_loss = critic_loss + 0.5 * (q(critic, obs, action) - target) ** 2 / rows
        action, log_prob = naive_sample(policy, obs, noise[b].double())
        entropy = entropy - log_prob.detach() / rows
        actor_loss = actor_loss + (alpha * log_prob - min(q(critic, obs, action) for critic in policy.critics)) / rows
    return policy, critic_loss, actor_loss, float(entropy)


def gradients(loss, module):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)])


def record(algorithm):
    """The gradient with which each optimiser steps, by its name; with a zero step size the weights stay."""
    seen = {}
    original = algorithm.descend

    def descend(optimizer, loss, *args, **kwargs):
        norm = original(optimizer, loss, *args, **kwargs)
        name = next(name for name, known in algorithm._optimizers.items() if known is optimizer)
        seen[name] = optimizer.param_groups[0]["params"][0].grad.clone().double()
        return norm

    algorithm.descend = descend
    return seen


def test_gradients_are_those_of_the_papers_losses():
    algorithm = make(lr=0.0, alpha=0.3)
    batch = batch_of()
    noise_next, noise = noises(6, 5)
    policy, critic_loss, actor_loss, entropy = naive_update(algorithm, batch, noise_next, noise)
    seen = record(algorithm)
    torch.manual_seed(5)
    info = algorithm.update(Fixed(batch))
    assert info["critic_loss"] == pytest.approx(float(critic_loss), rel=1e-4)
    assert info["actor_loss"] == pytest.approx(float(actor_loss), rel=1e-4)
    assert info["entropy"] == pytest.approx(entropy, rel=1e-4)
    assert info["alpha"] == pytest.approx(0.3)
    assert info["alpha_loss"] == pytest.approx(math.log(0.3) * (entropy + 2), rel=1e-4)
    for name, loss, module in (("critic", critic_loss, policy.critics), ("actor", actor_loss, policy.actor)):
        assert info[f"{name}_grad_norm"] == pytest.approx(float(gradients(loss, module).norm()), rel=1e-3)
    torch.testing.assert_close(seen["critics"], gradients(critic_loss, policy.critics), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(seen["actor"], gradients(actor_loss, policy.actor), rtol=1e-3, atol=1e-5)
    # d/d log_alpha of log_alpha * (entropy - target), with the target minus the number of action dimensions.
    assert float(algorithm.log_alpha.grad) == pytest.approx(entropy + 2, rel=1e-4)


def test_only_termination_cuts_the_bootstrap():
    batch = batch_of(terminateds=torch.zeros(6, dtype=torch.bool))
    losses = []
    for truncateds in (torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)):
        torch.manual_seed(0)
        algorithm = make()
        losses.append(algorithm.update(Fixed(replace(batch, truncateds=truncateds)))["critic_loss"])
    torch.manual_seed(0)
    terminated = make().update(Fixed(replace(batch, terminateds=torch.ones(6, dtype=torch.bool))))["critic_loss"]
    assert losses[0] == losses[1] != terminated


def test_target_critics_go_a_part_of_the_way():
    algorithm = make(tau=0.25)
    before = [parameter.clone() for parameter in algorithm.policy.target_critics.parameters()]
    for _ in range(2):
        algorithm.update(Fixed(batch_of()))
        critics = [parameter.detach().clone() for parameter in algorithm.policy.critics.parameters()]
        before = [0.75 * old + 0.25 * new for old, new in zip(before, critics, strict=True)]
    torch.testing.assert_close(list(algorithm.policy.target_critics.parameters()), before)


@pytest.mark.parametrize(("target_entropy", "rises"), [(50.0, True), (-50.0, False)])
def test_temperature_rises_where_the_entropy_is_too_low(target_entropy, rises):
    algorithm = make(target_entropy=target_entropy)
    for _ in range(5):
        algorithm.update(Fixed(batch_of()))
    assert (float(algorithm.log_alpha.detach()) > 0) is rises


def test_temperature_can_be_fixed():
    algorithm = make(alpha=0.2, learn_alpha=False)
    for _ in range(3):
        assert algorithm.update(Fixed(batch_of()))["alpha"] == pytest.approx(0.2)


def test_actor_loss_leaves_the_critics_gradients_alone():
    algorithm = make()
    seen = record(algorithm)
    algorithm.update(Fixed(batch_of()))
    held = algorithm.make_optimizer("critics").param_groups[0]["params"][0].grad.double()
    assert torch.equal(held, seen["critics"])


def test_nan_reward_is_named_and_changes_nothing():
    algorithm = make()
    algorithm.update(Fixed(batch_of()))
    before = copy.deepcopy(algorithm.policy.state_dict())
    rewards = torch.randn(6)
    rewards[2] = math.nan
    with pytest.raises(NonFiniteError, match="SAC") as caught:
        algorithm.update(Fixed(batch_of(rewards=rewards)))
    assert torch.isnan(caught.value.batch["rewards"][2])
    assert all(torch.equal(before[key], value) for key, value in algorithm.policy.state_dict().items())


def test_saved_state_continues_bit_for_bit():
    storage = ReplayStorage(OBS, ACTIONS, storage_size=50, batch_size=4)
    for _ in range(20):
        storage.add(
            *np.random.randn(2, 1, 3)[:1], np.random.uniform(-2, 2, (1, 2)), 1.0, False, False, {}, np.zeros((1, 3))
        )
    one, other = make(), make()
    for _ in range(3):
        one.update(storage)
    saved = copy.deepcopy((one.policy.state_dict(), one.state_dict(), storage.state_dict()["random"]))
    ends = []
    for algorithm in (one, other):
        if algorithm is other:
            other.policy.load_state_dict(saved[0])
            other.load_state_dict(saved[1])
            storage.random.bit_generator.state = saved[2]
        torch.manual_seed(9)
        for _ in range(3):
            algorithm.update(storage)
        ends.append(torch.cat([value.flatten() for value in algorithm.policy.state_dict().values()]))
    assert torch.equal(*ends)
    assert torch.equal(one.log_alpha, other.log_alpha)


def test_learns_the_best_arm_of_a_continuous_bandit():
    """One step, reward -(a - obs)^2: the best action is the observation."""
    storage = ReplayStorage(OBS, ACTIONS, storage_size=2000, batch_size=64)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        obs, action = rng.uniform(-1.5, 1.5, (1, 3)), rng.uniform(-2, 2, (1, 2))
        storage.add(obs, action, -np.square(action - obs[:, :2]).sum(1), True, False, {}, obs)
    torch.manual_seed(0)
    policy = SoftActorCritic(OBS, ACTIONS, hidden_sizes=(64, 64))
    algorithm = SAC(policy, lr=3e-3)
    for _ in range(500):
        algorithm.update(storage)
    obs = torch.rand(200, 3) * 2 - 1
    with torch.no_grad():
        error = (policy.act(obs, deterministic=True)[0] - obs[:, :2]).abs().mean()
    assert float(error) < 0.15
