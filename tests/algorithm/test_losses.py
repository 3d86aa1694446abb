import math

import pytest
import torch

from hsw.algorithm.losses import approximate_kl, clipped_surrogate, normalize, value_loss
from tests.algorithm.naive import normalized, squared_error, surrogate

B = 64


def normals(count):
    return [torch.randn(B) for _ in range(count)]


@pytest.mark.parametrize("clip_range", [0.1, 0.2, 1.0])
def test_clipped_surrogate_is_equation_7(clip_range):
    log_probs, old, advantages = normals(3)
    expected = surrogate(log_probs, old, advantages, clip_range)
    torch.testing.assert_close(clipped_surrogate(log_probs, old, advantages, clip_range), expected)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"), [(1.0, 1.0, False), (-1.0, 1.0, True), (1.0, -1.0, True), (-1.0, -1.0, False)]
)
def test_the_clip_stops_only_what_has_gone_far_enough_in_the_right_direction(log_ratio, advantage, moves):
    log_probs = torch.tensor([log_ratio], requires_grad=True)
    clipped_surrogate(log_probs, torch.zeros(1), torch.tensor([advantage]), 0.2).backward()
    assert bool(log_probs.grad) == moves


def test_the_surrogate_starts_as_the_policy_gradient():
    log_probs, advantages = normals(2)
    log_probs.requires_grad_()
    clipped_surrogate(log_probs, log_probs.detach(), advantages, 0.2).backward()
    torch.testing.assert_close(log_probs.grad, -advantages / B)


@pytest.mark.parametrize("clip_range", [None, 0.2, 1.0])
def test_value_loss_is_the_larger_of_free_and_clipped_error(clip_range):
    values, old, returns = normals(3)
    torch.testing.assert_close(
        value_loss(values, old, returns, clip_range), squared_error(values, old, returns, clip_range)
    )


def test_normalize_gives_zero_mean_and_unit_deviation():
    numbers = torch.randn(B) * 5 + 3
    torch.testing.assert_close(normalize(numbers), torch.tensor(normalized(numbers)[0]))


@pytest.mark.parametrize("numbers", [[2.0], [1.0, 1.0, 1.0]])
def test_normalize_stays_finite_without_any_spread(numbers):
    assert torch.isfinite(normalize(torch.tensor(numbers))).all()


def test_approximate_kl_is_the_estimator_and_has_no_gradient():
    log_probs, old = normals(2)
    expected = sum(math.exp(x - y) - 1 - (x - y) for x, y in zip(log_probs.tolist(), old.tolist(), strict=True)) / B
    got = approximate_kl(log_probs.requires_grad_(), old)
    assert float(got) == pytest.approx(expected, rel=1e-5)
    assert not got.requires_grad


def test_approximate_kl_estimates_the_kl():
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.2, 1.0)
    actions = old.sample((100_000,))
    assert float(approximate_kl(new.log_prob(actions), old.log_prob(actions))) == pytest.approx(0.02, rel=0.05)
