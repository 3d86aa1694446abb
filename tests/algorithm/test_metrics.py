"""What an update tells of itself, against loops over its rows."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from gymnasium.spaces import Box

from hsw.algorithm import DAAC, PPO
from hsw.algorithm.metrics import Record, explained_variance, policy_std
from hsw.network import ActorCritic
from tests.algorithm.naive import collected, mean, same_batches

WEIGHTS = {"entropy_coef": 0.1}


def variance(numbers):
    return mean([(x - mean(numbers)) ** 2 for x in numbers])


def naive_explained(values, returns):
    return 1 - variance([r - v for v, r in zip(values, returns, strict=True)]) / variance(returns)


@pytest.mark.parametrize("kind", [PPO, DAAC])
def test_an_update_tells_what_its_rows_say(kind):
    algorithm, storage = collected(kind, num_mini_batch=1, num_epochs=1, clip_range=0.1, **WEIGHTS)
    policy, batch = copy.deepcopy(algorithm.policy), next(same_batches(storage).generate_batches(1))
    with torch.no_grad():
        log_probs = policy.evaluate(batch.obs, batch.actions)[0].tolist()
    ratios = [math.exp(new - old) for new, old in zip(log_probs, batch.log_probs.tolist(), strict=True)]
    values, returns = batch.values.tolist(), batch.returns.tolist()
    info = algorithm.update(storage)
    assert info["clip_fraction"] == pytest.approx(mean([abs(ratio - 1) > 0.1 for ratio in ratios]))
    assert 0 < info["clip_fraction"] < 1
    assert info["value"] == pytest.approx(mean(values), rel=1e-4)
    assert info["explained_variance"] == pytest.approx(naive_explained(values, returns), rel=1e-3)
    extra = 0.5 * info["value_loss"] if kind is PPO else 0.25 * info["adv_loss"]
    assert info["loss"] == pytest.approx(info["policy_loss"] + extra - 0.1 * info["entropy"])
    assert "std" not in info  # actions are choices


def test_every_minibatch_counts_and_each_row_of_the_rollout_once():
    torch.manual_seed(0)
    batches = [[torch.randn(4) for _ in range(3)] for _ in range(6)]  # three epochs of two
    record = Record(num_mini_batch=2)
    for old, values, returns in batches:
        record.add(torch.zeros(4), SimpleNamespace(log_probs=old, values=values, returns=returns))
    told = record.metrics(0.2)
    clipped = [abs(math.exp(-float(old)) - 1) > 0.2 for part, _, _ in batches for old in part]
    rollout = [[float(x) for x in torch.cat([batch[i] for batch in batches[:2]])] for i in (1, 2)]
    assert len(record) == 6
    assert told["clip_fraction"] == pytest.approx(mean(clipped))
    assert told["value"] == pytest.approx(mean(rollout[0]), abs=1e-6)
    assert told["explained_variance"] == pytest.approx(naive_explained(*rollout), rel=1e-4)


def test_an_update_that_target_kl_ended_at_once_tells_no_more_than_it_knows():
    algorithm, storage = collected(PPO, target_kl=1e-9)
    info = algorithm.update(storage)
    assert info["gradient_steps"] == 0
    assert all(math.isfinite(value) for value in info.values())


@pytest.mark.parametrize(("offset", "expected"), [(0.0, 1.0), (3.0, 1.0)])
def test_values_that_are_right_but_for_a_constant_explain_everything(offset, expected):
    returns = torch.randn(10)
    assert float(explained_variance(returns + offset, returns)) == pytest.approx(expected, abs=1e-5)


def test_where_all_returns_are_alike_there_is_nothing_to_explain():
    assert float(explained_variance(torch.randn(10), torch.ones(10))) == 0


def test_the_std_of_gaussian_actions_is_their_mean_over_dimensions():
    policy = ActorCritic(Box(-1, 1, (2,)), Box(-1, 1, (2,)))
    with torch.no_grad():
        policy.distribution.log_std.copy_(torch.tensor([0.0, math.log(3.0)]))
    assert policy_std(policy) == {"std": pytest.approx(2.0)}
