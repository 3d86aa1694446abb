"""A2C's update against the paper's formula, written as loops."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from hsw.algorithm import A2C
from tests.algorithm.naive import POLICIES, N, T, collected, same_batches

POLICIES[A2C] = POLICIES[next(kind for kind in POLICIES if kind.__name__ == "PPO")]


def naive_loss(policy: Any, batch: Any, normalized: bool, value_coef: float, entropy_coef: float) -> Any:
    rows = len(batch.actions)
    mean = sum(batch.advantages) / rows
    std = (sum((a - mean) ** 2 for a in batch.advantages) / (rows - 1)) ** 0.5
    total: Any = 0.0
    for b in range(rows):
        logits = policy.policy_head(policy.encoder(batch.obs[b : b + 1]))[0]
        value = policy.value_head(policy.value_encoder(batch.obs[b : b + 1]))[0, 0]
        probs = logits.exp() / logits.exp().sum()
        advantage = (batch.advantages[b] - mean) / (std + 1e-8) if normalized else batch.advantages[b]
        entropy = -sum(p * p.log() for p in probs)
        total = total - advantage * probs[batch.actions[b]].log() - entropy_coef * entropy
        total = total + value_coef * (value - batch.returns[b]) ** 2
    return total / rows


@pytest.mark.parametrize("normalized", [False, True])
def test_the_step_is_that_of_the_papers_loss_by_rmsprop(normalized: bool) -> None:
    algorithm, storage = collected(A2C, lr=0.01, normalize_advantages=normalized, max_grad_norm=0.2, eps=1e-3)
    policy = copy.deepcopy(algorithm.policy)
    (batch,) = same_batches(storage).generate_batches(1)
    assert len(batch.actions) < N * T  # reset rows are not learnt from
    loss = naive_loss(policy, batch, normalized, 0.5, 0.01)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))])
    before = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
    info = algorithm.update(storage)
    assert info["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    norm = float(gradient.norm())
    assert info["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert norm > 0.2
    gradient *= 0.2 / norm
    square = 0.01 * gradient**2  # 1 - decay
    expected = before - 0.01 * gradient / (square.sqrt() + 1e-3)
    found = torch.nn.utils.parameters_to_vector(algorithm.policy.parameters()).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_a_saved_state_continues_bit_for_bit(optimizer: str) -> None:
    ends = []
    for resumed in (False, True):
        algorithm, storage = collected(A2C, optimizer=optimizer)
        algorithm.update(storage)
        if resumed:
            saved = copy.deepcopy((algorithm.policy.state_dict(), algorithm.state_dict()))
            algorithm, _ = collected(A2C, seed=1, optimizer=optimizer)
            algorithm.policy.load_state_dict(saved[0])
            algorithm.load_state_dict(saved[1])
        algorithm.update(storage)
        ends.append(torch.nn.utils.parameters_to_vector(algorithm.policy.parameters()).detach())
    assert torch.equal(*ends)
