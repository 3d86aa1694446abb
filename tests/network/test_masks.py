"""Distributions and values over the allowed actions alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from hsw.algorithm import DQN
from hsw.errors import ConfigError
from hsw.network import (
    ActorCritic,
    DecoupledActorCritic,
    MemoryActorCritic,
    QNetwork,
    RecurrentActorCritic,
    make_distribution,
)
from hsw.spaces import mask_space, read_space
from hsw.storage.batches import ReplayBatch

BOX = read_space(Box(-1, 1, (3,), np.float32))
MASK = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.int8)


def seen(mask: torch.Tensor = MASK) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {"observation": torch.randn(len(mask), 3), "action_mask": mask}


def test_log_probs_and_entropy_are_those_of_a_distribution_over_the_allowed_ones() -> None:
    distribution, params = make_distribution(read_space(Discrete(4))), torch.randn(3, 4, requires_grad=True)
    masked = distribution.masked(params, MASK)
    for b, allowed in enumerate(MASK.bool()):
        few = torch.distributions.Categorical(logits=params[b, allowed])
        for k, action in enumerate(allowed.nonzero().flatten()):
            log_prob, entropy = distribution.log_prob_and_entropy(masked[b : b + 1], action[None])
            torch.testing.assert_close(log_prob[0], few.log_prob(torch.tensor(k)))
            torch.testing.assert_close(entropy[0], few.entropy())
    log_probs, entropies = distribution.log_prob_and_entropy(masked, torch.tensor([0, 2, 3]))
    (gradient,) = torch.autograd.grad((log_probs + entropies).sum(), params)
    assert gradient.isfinite().all()
    assert (gradient[MASK == 0] == 0).all()


def test_of_several_choices_each_has_its_part_of_the_mask() -> None:
    distribution = make_distribution(read_space(MultiDiscrete([2, 3])))
    params, mask = torch.randn(1, 5), torch.tensor([[1, 0, 0, 1, 1]])
    masked = distribution.masked(params, mask)
    few = torch.distributions.Categorical(logits=params[0, 3:])
    log_prob, entropy = distribution.log_prob_and_entropy(masked, torch.tensor([[0, 2]]))
    torch.testing.assert_close(log_prob[0], few.log_prob(torch.tensor(1)))
    torch.testing.assert_close(entropy[0], few.entropy())
    actions = distribution.sample(masked.expand(2000, 5))
    assert {tuple(row) for row in actions.tolist()} == {(0, 1), (0, 2)}
    with pytest.raises(ConfigError, match="DiagGaussian has no choices to mask"):
        make_distribution(read_space(Box(-1, 1, (2,)))).masked(params, mask)


KINDS = (ActorCritic, DecoupledActorCritic, MemoryActorCritic, RecurrentActorCritic, QNetwork)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_policy_takes_what_is_not_allowed_and_no_encoder_sees_the_mask(kind: Any) -> None:
    torch.manual_seed(0)
    policy = kind(mask_space(BOX, 4), Discrete(4), hidden_sizes=(8,))
    assert policy.encoder_names().keys() == {""}
    # The more a policy wants what is closed, the more a leak would show.
    with torch.no_grad():
        head = policy.online.advantages if kind is QNetwork else policy.policy_head
        head.bias += torch.tensor([0.0, 50.0, 0.0, 0.0])
    rows = seen(MASK.repeat(500, 1))
    for deterministic in (False, True):
        actions = policy.act(rows, deterministic)[0]
        assert rows["action_mask"].gather(1, actions[:, None]).all()
    if kind is QNetwork:
        counts = policy.random_actions(1500, rows).view(500, 3)
        assert [sorted(set(column.tolist())) for column in counts.T] == [[0, 2, 3], [2], [0, 1, 2, 3]]


@pytest.mark.parametrize("kind", [ActorCritic, DecoupledActorCritic])
def test_what_acted_and_what_learns_agree_on_log_probs(kind: Any) -> None:
    policy, rows = kind(mask_space(BOX, 4), Discrete(4), hidden_sizes=(8,)), seen()
    actions, extras = policy.act(rows)
    torch.testing.assert_close(policy.evaluate(rows, actions)[0], extras["log_probs"])
    torch.testing.assert_close(policy.value(rows), extras["values"])


@pytest.mark.parametrize("double", [False, True])
def test_dqns_target_is_the_best_of_the_actions_allowed_where_the_step_led(double: bool) -> None:
    torch.manual_seed(0)
    policy = QNetwork(mask_space(BOX, 4), Discrete(4), hidden_sizes=(8,))
    with torch.no_grad():
        for parameter in policy.target.parameters():
            parameter += torch.randn_like(parameter)
    here, there = seen(), seen(MASK.flip(0))
    flags = torch.tensor([False, False, True]), torch.tensor([False, True, False])
    batch = ReplayBatch(here, torch.tensor([3, 2, 1]), torch.randn(3), there, *flags, torch.full((3,), 0.9))
    errors = []
    for b, action in enumerate(batch.actions):
        chooser = policy.online if double else policy.target
        values = chooser(there["observation"][b : b + 1])[0]
        best = max((a for a in range(4) if there["action_mask"][b, a]), key=lambda a, values=values: float(values[a]))
        target = batch.rewards[b] + 0.9 * policy.target(there["observation"][b : b + 1])[0, best] * (not flags[0][b])
        errors.append(float(0.5 * (policy.online(here["observation"][b : b + 1])[0, action] - target) ** 2))
    fixed = type("Fixed", (), {"generate_batches": lambda self, number: itertools.repeat(batch)})()
    info = DQN(policy, double=double, loss="mse", lr=0.0).update(fixed)
    assert info["loss"] == pytest.approx(sum(errors) / 3, rel=1e-4)
