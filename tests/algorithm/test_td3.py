"""TD3's update against the paper's formulas, one transition at a time."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.algorithm import TD3
from hsw.network import DeterministicActorCritic
from hsw.storage import ReplayStorage
from tests.algorithm.test_sac import ACTIONS, OBS, Fixed, batch_of, gradients, record


def make(**kwargs: Any) -> TD3:
    torch.manual_seed(0)
    policy = DeterministicActorCritic(OBS, ACTIONS, hidden_sizes=(8,), activation="tanh")
    with torch.no_grad():
        for target in (policy.target_actor, policy.target_critics):
            for parameter in target.parameters():  # as after many updates: not the trained networks
                parameter += 0.3 * torch.randn_like(parameter)
    return TD3(policy, **kwargs)


def naive_losses(policy: Any, batch: Any, noise: torch.Tensor, spread: float, clip: float) -> tuple[Any, Any]:
    """The critics' loss and the actor's, summed over transitions in plain Python."""
    rows = len(batch.rewards)
    q = lambda critic, obs, action: critic(torch.cat([obs, action])[None])[0, 0]
    critic_loss: Any = 0.0
    actor_loss: Any = 0.0
    for b in range(rows):
        obs, next_obs = batch.obs[b].double(), batch.next_obs[b].double()
        with torch.no_grad():
            action = torch.tanh(policy.target_actor(next_obs[None])[0])
            for i in range(2):
                moved = float(action[i]) + min(max(float(noise[b, i]) * spread, -clip), clip)
                action[i] = min(max(moved, -1.0), 1.0)
            target = float(batch.rewards[b])
            if not batch.terminateds[b]:
                least = min(float(q(critic, next_obs, action)) for critic in policy.target_critics)
                target += float(batch.discounts[b]) * least
        action = batch.actions[b].double() / 2  # [-2, 2] as [-1, 1]
        for critic in policy.critics:
            critic_loss = critic_loss + (q(critic, obs, action) - target) ** 2 / rows
        actor_loss = actor_loss - q(policy.critics[0], obs, torch.tanh(policy.actor(obs[None])[0])) / rows
    return critic_loss, actor_loss


def test_gradients_are_those_of_the_papers_losses() -> None:
    algorithm = make(lr=0.0, policy_delay=1, target_noise=0.4, target_noise_clip=0.5, tau=1e-9)
    policy, batch = copy.deepcopy(algorithm.policy).double(), batch_of()
    torch.manual_seed(5)
    noise = torch.randn(6, 2)
    assert (noise.abs() * 0.4 > 0.5).any()  # some of it is clipped
    critic_loss, actor_loss = naive_losses(policy, batch, noise, 0.4, 0.5)
    seen = record(algorithm)
    torch.manual_seed(5)
    info = algorithm.update(Fixed(batch))
    assert info["critic_loss"] == pytest.approx(float(critic_loss), rel=1e-4)
    assert info["actor_loss"] == pytest.approx(float(actor_loss), rel=1e-4)
    torch.testing.assert_close(seen["critics"], gradients(critic_loss, policy.critics), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(seen["actor"], gradients(actor_loss, policy.actor), rtol=1e-3, atol=1e-5)


def test_the_actor_and_the_targets_move_every_policy_delay_updates() -> None:
    algorithm = make(policy_delay=3, tau=0.25)
    pairs = (("actor", "target_actor"), ("critics", "target_critics"))
    flat = lambda name: torch.nn.utils.parameters_to_vector(getattr(algorithm.policy, name).parameters()).detach()
    targets = {target: flat(target).clone() for _, target in pairs}
    actor = flat("actor").clone()
    for update in range(1, 7):
        info = algorithm.update(Fixed(batch_of()))
        assert ("actor_loss" in info) is (update % 3 == 0)
        assert torch.equal(flat("actor"), actor) is bool(update % 3)
        actor = flat("actor").clone()
        for trained, target in pairs:
            if update % 3 == 0:
                targets[target] = 0.75 * targets[target] + 0.25 * flat(trained)
            torch.testing.assert_close(flat(target), targets[target])


def test_collecting_adds_noise_and_stays_within_the_bounds() -> None:
    policy = DeterministicActorCritic(OBS, ACTIONS, hidden_sizes=(8,), exploration_noise=0.3)
    obs = torch.randn(1, 3).expand(5000, 3)
    greedy = policy.act(obs, deterministic=True)[0]
    assert torch.equal(greedy, greedy[:1].expand_as(greedy))
    actions = policy.act(obs)[0]
    assert actions.abs().max() <= 2
    spread = (actions - greedy).std(0)
    torch.testing.assert_close(spread, torch.full((2,), 0.6), atol=0.05, rtol=0)  # of [-2, 2]


def test_saved_state_continues_bit_for_bit_between_two_updates_of_the_actor() -> None:
    one, other = make(), make()
    torch.manual_seed(1)
    batches = [batch_of() for _ in range(7)]
    for batch in batches[:3]:
        one.update(Fixed(batch))
    saved = copy.deepcopy((one.policy.state_dict(), one.state_dict()))
    other.policy.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    for algorithm in (one, other):
        torch.manual_seed(9)
        for batch in batches[3:]:
            algorithm.update(Fixed(batch))
    assert all(map(torch.equal, one.policy.state_dict().values(), other.policy.state_dict().values()))


def test_a_task_that_only_truncates_is_worth_its_reward_over_one_minus_the_discount() -> None:
    storage = ReplayStorage(OBS, ACTIONS, storage_size=200, batch_size=32, discount=0.9)
    obs, random = np.ones((1, 3)), np.random.default_rng(0)
    for t in range(200):
        storage.add(obs, random.uniform(-2, 2, (1, 2)), 1.0, False, t % 5 == 4, {}, obs)
    algorithm = make(lr=0.01, tau=0.2, policy_delay=1)
    for _ in range(800):
        algorithm.update(storage)
    x = torch.ones(1, 3)
    torch.testing.assert_close(
        algorithm.policy.values(x, torch.zeros(1, 2)), torch.full((2, 1), 10.0), atol=0.5, rtol=0
    )


def test_learns_the_best_arm_of_a_continuous_bandit() -> None:
    """One step, reward -(a - obs)^2: the best action is the observation."""
    storage, random = ReplayStorage(OBS, ACTIONS, storage_size=2000, batch_size=64), np.random.default_rng(0)
    for _ in range(2000):
        obs, action = random.uniform(-1.5, 1.5, (1, 3)), random.uniform(-2, 2, (1, 2))
        storage.add(obs, action, -np.square(action - obs[:, :2]).sum(1), True, False, {}, obs)
    torch.manual_seed(0)
    policy = DeterministicActorCritic(OBS, ACTIONS, hidden_sizes=(64, 64))
    algorithm = TD3(policy, lr=3e-3)
    for _ in range(500):
        algorithm.update(storage)
    obs = torch.rand(200, 3) * 2 - 1
    with torch.no_grad():
        error = (policy.act(obs, deterministic=True)[0] - obs[:, :2]).abs().mean()
    assert float(error) < 0.15


def test_unbounded_actions_are_refused_by_the_algorithms_name() -> None:
    with pytest.raises(Exception, match="TD3 needs continuous actions between finite bounds"):
        DeterministicActorCritic(OBS, gym.spaces.Box(-np.inf, np.inf, (2,)))
