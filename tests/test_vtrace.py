"""V-trace against its formulas, one environment and one step at a time, and against the paper's fixed point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hsw.returns import gae, vtrace


def naive(log_ratios, rewards, values, terminateds, truncateds, discount, rho_bar, c_bar, trace_lambda, valid):
    """The sums of arXiv:1802.01561, equation 1, written out, and A_t with the bootstraps of truncations."""
    num_steps, num_envs = rewards.shape
    targets, advantages = torch.zeros(2, num_steps, num_envs, dtype=torch.float64)
    for n in range(num_envs):
        v = [float(x) for x in values[:, n]]
        rho = [math.exp(float(x)) for x in log_ratios[:, n]]

        def delta(t, n=n, v=v, rho=rho):
            following = 0.0 if terminateds[t, n] else v[t + 1]
            return min(rho_bar, rho[t]) * (float(rewards[t, n]) + discount * following - v[t])

        for t in range(num_steps):
            if not valid[t, n]:
                continue
            total, weight = v[t], 1.0
            for s in range(t, num_steps):
                total += weight * delta(s)
                if terminateds[s, n] or truncateds[s, n]:
                    break
                weight *= discount * trace_lambda * min(c_bar, rho[s])
            targets[t, n] = total
        for t in range(num_steps):
            if not valid[t, n]:
                continue
            if terminateds[t, n]:
                following = 0.0
            elif truncateds[t, n] or t == num_steps - 1:
                following = v[t + 1]
            else:
                following = float(targets[t + 1, n])
            advantages[t, n] = min(rho_bar, rho[t]) * (float(rewards[t, n]) + discount * following - v[t])
    return targets, advantages


def draw(num_steps, num_envs, seed, ends=0.2):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: torch.from_numpy(rng.normal(size=shape))
    terminateds, truncateds = (torch.from_numpy(rng.random((num_steps, num_envs)) < ends) for _ in range(2))
    truncateds &= ~terminateds
    valid = torch.ones_like(terminateds)
    for t in range(1, num_steps):  # the row after a done is a reset row and ends nothing
        valid[t] = ~(terminateds[t - 1] | truncateds[t - 1])
        terminateds[t] &= valid[t]
        truncateds[t] &= valid[t]
    rewards = normal(num_steps, num_envs) * valid
    return normal(num_steps, num_envs), rewards, normal(num_steps + 1, num_envs), terminateds, truncateds, valid


@pytest.mark.parametrize("constants", [(1.0, 1.0, 1.0), (2.0, 0.7, 0.9), (0.5, 1.5, 0.0), (math.inf, math.inf, 1.0)])
@pytest.mark.parametrize(("num_steps", "num_envs"), [(1, 1), (2, 3), (7, 4), (33, 5)])
def test_vtrace_is_the_papers_sum(num_steps, num_envs, constants):
    for seed in range(10):
        *arrays, valid = draw(num_steps, num_envs, seed)
        expected = naive(*arrays, 0.95, *constants, valid)
        found = vtrace(*arrays, 0.95, *constants, valid)
        torch.testing.assert_close(found.targets, expected[0])
        torch.testing.assert_close(found.advantages, expected[1])


def test_on_policy_targets_are_the_returns_of_gae_with_lambda_one():
    _, rewards, values, terminateds, truncateds, valid = draw(20, 4, 0)
    found = vtrace(torch.zeros_like(rewards), rewards, values, terminateds, truncateds, 0.9, valid=valid)
    advantages = gae(rewards, values, terminateds, truncateds, 0.9, 1.0, valid)
    torch.testing.assert_close(found.targets, (advantages + values[:-1]) * valid)


def test_a_truncation_bootstraps_and_the_next_episode_does_not_leak():
    log_ratios, rewards, values, terminateds, truncateds, valid = draw(12, 1, 3, ends=0.0)
    truncateds[5], valid[6] = True, False
    before = vtrace(log_ratios, rewards, values, terminateds, truncateds, 0.9, valid=valid)
    other = rewards.clone()
    other[7:] += 100
    shifted = values.clone()
    shifted[7:] -= 50  # values[6] is the final observation's
    after = vtrace(log_ratios, other, shifted, terminateds, truncateds, 0.9, valid=valid)
    assert torch.equal(before.targets[:7], after.targets[:7])
    assert torch.equal(before.advantages[:7], after.advantages[:7])
    values[6] += 1
    moved = vtrace(log_ratios, rewards, values, terminateds, truncateds, 0.9, valid=valid)
    rho = float(log_ratios[5].exp().clamp(max=1))
    torch.testing.assert_close(
        moved.advantages[5] - before.advantages[5], torch.tensor([0.9 * rho], dtype=torch.float64)
    )


def test_nothing_has_a_gradient_and_shapes_are_checked():
    log_ratios, rewards, values, terminateds, truncateds, _ = draw(4, 2, 0)
    found = vtrace(log_ratios.requires_grad_(), rewards, values.requires_grad_(), terminateds, truncateds, 0.9)
    assert not found.targets.requires_grad
    assert not found.advantages.requires_grad
    with pytest.raises(ValueError, match="values"):
        vtrace(log_ratios, rewards, values[:-1], terminateds, truncateds, 0.9)
    with pytest.raises(ValueError, match="log_ratios"):
        vtrace(log_ratios[:-1], rewards, values, terminateds, truncateds, 0.9)


@pytest.mark.parametrize("rho_bar", [0.4, 1.0, 100.0])
def test_fixed_point_is_the_value_of_the_papers_clipped_policy(rho_bar):
    """Section 4.1: pi_rho(a|x) = min(rho_bar mu, pi) / sum, with tabular values and data from mu."""
    rng = np.random.default_rng(0)
    states, actions, discount = 3, 2, 0.8
    mu, pi = rng.dirichlet(np.ones(actions), (2, states))
    chain = rng.dirichlet(np.ones(states), (states, actions))
    reward = rng.normal(size=(states, actions))
    clipped = np.minimum(rho_bar * mu, pi)
    clipped /= clipped.sum(1, keepdims=True)
    transition = np.einsum("xa,xay->xy", clipped, chain)
    expected = np.linalg.solve(np.eye(states) - discount * transition, (clipped * reward).sum(1))

    num_steps, num_envs = 40, 4000
    x = np.zeros((num_steps + 1, num_envs), int)
    a = np.zeros((num_steps, num_envs), int)
    x[0] = rng.integers(states, size=num_envs)
    for t in range(num_steps):
        a[t] = (rng.random(num_envs)[:, None] > mu[x[t]].cumsum(1)).sum(1)
        x[t + 1] = (rng.random(num_envs)[:, None] > chain[x[t], a[t]].cumsum(1)).sum(1)
    log_ratios = torch.from_numpy(np.log(pi[x[:-1], a] / mu[x[:-1], a]))
    rewards = torch.from_numpy(reward[x[:-1], a])
    never = torch.zeros(num_steps, num_envs, dtype=torch.bool)
    values = np.zeros(states)
    for _ in range(60):  # the operator is a contraction; its fixed point is looked for on the same data
        found = vtrace(log_ratios, rewards, torch.from_numpy(values[x]), never, never, discount, rho_bar=rho_bar)
        first = x[: num_steps // 2]  # later steps have short sums, which is no error but slower
        targets = found.targets[: num_steps // 2].numpy()
        values = np.array([targets[first == s].mean() for s in range(states)])
    np.testing.assert_allclose(values, expected, atol=0.05)
