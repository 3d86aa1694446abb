import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import distributions as td

from hsw.errors import ConfigError
from hsw.network.distribution import FEW_ROWS, make_distribution
from hsw.spaces import read_space
from tests.helpers import ACTION_SPACES

B = 6


class Joint:
    """torch's categoricals side by side."""

    def __init__(self, params, nvec):
        self.parts = [td.Categorical(logits=part) for part in params.split(nvec, -1)]

    def log_prob(self, actions):
        return sum(part.log_prob(actions[:, i]) for i, part in enumerate(self.parts))

    def entropy(self):
        return sum(part.entropy() for part in self.parts)


def gaussian(own, params):
    normal = td.Normal(params.unflatten(-1, own.shape), own.log_std.exp().unflatten(-1, own.shape))
    return td.Independent(normal, len(own.shape))


KINDS = {
    "categorical": (Discrete(5), lambda own, params: td.Categorical(logits=params)),
    "multi": (MultiDiscrete([2, 4, 3]), lambda own, params: Joint(params, [2, 4, 3])),
    "bernoulli": (MultiBinary(4), lambda own, params: td.Independent(td.Bernoulli(logits=params), 1)),
    "gaussian": (Box(-1, 1, (2, 3), np.float32), gaussian),
}


def build(space):
    own = make_distribution(read_space(space))
    for parameter in own.parameters():
        parameter.data.normal_()
    return own, torch.randn(B, own.params_dim) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_entropy_and_their_gradients_are_torchs(kind):
    space, reference = KINDS[kind]
    own, params = build(space)
    actions = own.sample(params)
    leaves = [params.requires_grad_(), *own.parameters()]
    expected = reference(own, params)
    log_prob, entropy = own.log_prob_and_entropy(params, actions)
    for got, wanted in ((log_prob, expected.log_prob(actions.float())), (entropy, expected.entropy())):
        assert got.shape == (B,)
        torch.testing.assert_close(got, wanted)
        gradients = [torch.autograd.grad(x.sum(), leaves, allow_unused=True, retain_graph=True) for x in (got, wanted)]
        for own_gradient, torchs in zip(*gradients, strict=True):
            torch.testing.assert_close(own_gradient, torchs)
    torch.testing.assert_close(own.log_prob(params, actions), log_prob)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
@pytest.mark.parametrize("kind", ["categorical", "multi", "bernoulli"])
def test_extreme_logits_stay_finite(kind, logit):
    own, params = build(KINDS[kind][0])
    params = torch.zeros_like(params)
    params[:, 0] = logit
    actions = own.sample(params)
    log_prob, entropy = own.log_prob_and_entropy(params, actions)
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(entropy).all()


def frequencies(one_hot):
    return one_hot.float().mean(0)


@pytest.mark.parametrize("kind", ["categorical", "multi", "bernoulli"])
def test_samples_come_as_often_as_their_probability(kind):
    own, params = build(KINDS[kind][0])
    many = params[:1].expand(20000, -1)
    got = own.features(own.sample(many)).mean(0)
    parts = {"categorical": [5], "multi": [2, 4, 3]}.get(kind)
    expected = torch.cat([p.softmax(-1) for p in params[0].split(parts)]) if parts else params[0].sigmoid()
    torch.testing.assert_close(got, expected, atol=0.015, rtol=0)


def test_gaussian_samples_have_the_mean_and_the_std():
    own, params = build(KINDS["gaussian"][0])
    samples = own.sample(params[:1].expand(20000, -1)).flatten(1)
    torch.testing.assert_close(samples.mean(0), params[0], atol=0.1, rtol=0)
    torch.testing.assert_close(samples.std(0), own.log_std.exp().detach(), rtol=0.05, atol=0)


@pytest.mark.parametrize("action", ACTION_SPACES)
def test_samples_and_modes_have_the_shape_and_dtype_of_the_space(action):
    spec = read_space(ACTION_SPACES[action])
    own, params = build(spec)
    for actions in (own.sample(params), own.mode(params)):
        assert actions.shape == (B, *spec.shape)
        assert actions.dtype == spec.torch_dtype
    assert own.features(own.sample(params)).shape == (B, own.action_dim)


@pytest.mark.parametrize("kind", KINDS)
def test_no_action_is_likelier_than_the_mode(kind):
    own, params = build(KINDS[kind][0])
    modes = own.log_prob(params, own.mode(params))
    assert all((own.log_prob(params, own.sample(params)) <= modes + 1e-6).all() for _ in range(20))


# Seen elsewhere: [B, 1] discrete actions into a Categorical gave a BxB log-prob.
def test_a_column_of_discrete_actions_gives_one_log_prob_each():
    own, params = build(Discrete(5))
    actions = own.sample(params)
    column = actions.unsqueeze(1)
    assert torch.equal(own.log_prob(params, column), own.log_prob(params, actions))
    got, wanted = (own.log_prob_and_entropy(params, a) for a in (column, actions))
    assert all(map(torch.equal, got, wanted))
    assert torch.equal(own.features(column), own.features(actions))


def test_the_log_prob_is_that_of_the_sample_and_not_of_the_clipped_action():
    own, _ = build(Box(-1, 1, (2,), np.float32))
    far = torch.full((B, 2), 3.0)
    expected = td.Normal(torch.zeros(2), own.log_std.exp()).log_prob(far).sum(-1)
    torch.testing.assert_close(own.log_prob(torch.zeros(B, 2), far), expected)


def test_the_gaussians_std_is_trained():
    own, params = build(Box(-1, 1, (2,), np.float32))
    own.log_prob(params, own.sample(params)).sum().backward()
    assert own.log_std.grad is not None


def test_actions_that_have_no_distribution_are_refused():
    with pytest.raises(ConfigError, match="Dict actions are not supported"):
        make_distribution(read_space(Dict({"a": Discrete(2)})))


# Few rows are chosen in NumPy, many in torch.
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_choice_of_few_rows_is_that_of_many_with_the_same_random_numbers(deterministic):
    distribution = make_distribution(read_space(Discrete(5)))
    torch.manual_seed(0)
    params = torch.randn(2 * FEW_ROWS, 5) * 3
    torch.manual_seed(1)
    actions, log_probs = distribution.choose(params, deterministic)
    torch.manual_seed(1)
    parts = [distribution.choose(part, deterministic) for part in params.split(FEW_ROWS)]
    assert torch.equal(torch.cat([part[0] for part in parts]), actions)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), log_probs)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), distribution.log_prob(params, actions))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_choice_from_numbers_that_are_none_warns_of_nothing_and_gives_none(bad, recwarn):
    actions, log_probs = make_distribution(read_space(Discrete(3))).choose(torch.tensor([[0.0, bad, 0.0]]), False)
    assert actions.shape == (1,)
    assert not torch.isfinite(log_probs).any()
    assert len(recwarn) == 0
