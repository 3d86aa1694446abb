"""A2C's update against the paper's formula, written as loops."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from hsw.algorithm import A2C, IMPALA
from tests.agent.helpers import agent
from tests.algorithm.naive import N, T, collected, same_batches


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


def test_a_task_that_only_truncates_is_worth_its_reward_over_one_minus_the_discount() -> None:
    options = {"lr": 0.02, "entropy_coef": 0.0, "value_coef": 1.0, "max_grad_norm": 100.0, "lr_schedule": "constant"}
    only_truncates = {"kwargs": {"length": 5, "truncate": True}}
    trained = agent(
        "Counter", A2C, env=only_truncates, algorithm={**options, "optimizer": "adam"}, storage={"discount": 0.8}
    )
    trained.train(6_000)
    values = trained.storage.values
    torch.testing.assert_close(values, torch.full_like(values, 5.0), atol=0.6, rtol=0)


@pytest.mark.parametrize("kind", [A2C, IMPALA])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_the_optimiser_is_the_one_that_was_chosen(kind: Any, optimizer: str) -> None:
    policy = torch.nn.Linear(2, 1)
    made = kind(policy, optimizer=optimizer, lr=0.25, eps=0.5).make_optimizer()
    assert type(made).__name__.lower() == optimizer
    group = made.param_groups[0]
    assert (group["lr"], group["eps"], group.get("alpha", 0.99)) == (0.25, 0.5, 0.99)
