"""SAC's networks against torch.distributions and plain loops."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from hsw.errors import ConfigError
from hsw.network import SoftActorCritic
from hsw.network.soft_actor_critic import squashed_log_prob
from hsw.spaces import space_config, tree_map

BOX = gym.spaces.Box
OBS = BOX(-np.inf, np.inf, (3,), np.float32)
ACTIONS = BOX(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))
DICT = gym.spaces.Dict({"b": BOX(-9, 9, (2, 2), np.float32), "a": gym.spaces.Discrete(3)})
IMAGE = BOX(0, 255, (3, 36, 36), np.uint8)


def make(obs=OBS, actions=ACTIONS, **kwargs):
    return SoftActorCritic(obs, actions, hidden_sizes=(16,), **kwargs)


def draw(space, rows):
    return tree_map(torch.as_tensor, gym.vector.utils.batch_space(space, rows).sample())


def test_log_prob_is_that_of_torch_distributions():
    mean, log_std, noise = torch.randn(3, 50, 2, dtype=torch.float64)
    u = mean + noise * log_std.exp()
    base = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    expected = Independent(base, 1).log_prob(base.transforms[0](u))
    near = u.abs().amax(-1) < 4  # beyond, their inverse tanh loses digits
    assert near.sum() > 10
    torch.testing.assert_close(squashed_log_prob(u, noise, log_std)[near], expected[near])


@pytest.mark.parametrize("value", [-25.0, 25.0])
def test_log_prob_is_exact_where_tanh_rounds_to_one(value):
    """log N(u; u, 1) - log(1 - tanh(u)^2), where 1e-6 added inside the logarithm would give 12.9 and not 47.7."""
    exact = -0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 25 - math.log1p(math.exp(-50)))
    log_prob = squashed_log_prob(torch.tensor([[value]]), torch.zeros(1, 1), torch.zeros(1, 1))
    assert float(log_prob) == pytest.approx(exact, rel=1e-6)


def test_sampled_actions_integrate_to_one():
    """The mean of 1 / density over samples is the volume of the support, 2 for one dimension in (-1, 1)."""
    policy = make(actions=BOX(-1, 1, (1,), np.float32))
    actions, log_probs = policy.sample(torch.zeros(200_000, 3))
    assert float((-log_probs).exp().mean().detach()) == pytest.approx(2, rel=0.05)
    assert float(actions.abs().max()) <= 1


def test_actions_are_scaled_dimension_by_dimension():
    policy = make()
    with torch.no_grad():
        policy.actor.layers[-1].bias.copy_(torch.tensor([100.0, 100.0, 0, 0]))
    high, extras = policy.act(torch.zeros(1, 3), deterministic=True)
    torch.testing.assert_close(high, torch.tensor([[1.0, 10.0]]))
    assert extras == {}
    unit = policy.to_unit(torch.tensor([[1.0, 10], [0, 5], [-1, 0]]))
    torch.testing.assert_close(unit, torch.tensor([[1.0, 1], [0, 0], [-1, -1]]))


def test_random_actions_are_uniform_between_the_bounds():
    actions = make().random_actions(20_000)
    low, high = torch.tensor(ACTIONS.low), torch.tensor(ACTIONS.high)
    assert (actions >= low).all()
    assert (actions <= high).all()
    unit = (actions - low) / (high - low)
    for column in unit.T:
        counts = torch.histc(column, 10, 0, 1)
        assert float(((counts - 2000) ** 2 / 2000).sum()) < 30  # chi-square with 9 degrees of freedom, p < .001


def test_sampling_draws_around_the_mode_and_the_mode_is_the_squashed_mean():
    policy = make()
    x = torch.randn(1, 3).expand(50_000, 3)
    mean, log_std = policy._params(x)
    u = (policy.to_unit(policy.act(x)[0])).clamp(-0.999999, 0.999999).atanh()
    torch.testing.assert_close(u.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(u.std(0), log_std[0].exp(), atol=0.05, rtol=0)
    torch.testing.assert_close(policy.to_unit(policy.act(x[:1], deterministic=True)[0]), mean[:1].tanh())


@pytest.mark.parametrize("obs", [OBS, DICT, IMAGE], ids=["box", "dict", "image"])
def test_every_network_reads_every_kind_of_observation(obs):
    policy = make(space_config(obs))
    x = policy.encode(draw(obs, 5))
    actions, log_probs = policy.sample(x)
    assert policy.act(draw(obs, 5))[0].shape == (5, 2)
    assert (actions.shape, log_probs.shape) == ((5, 2), (5,))
    assert policy.values(x, actions).shape == policy.target_values(x, actions).shape == (2, 5)
    torch.testing.assert_close(policy.values(x, actions), policy.target_values(x, actions))


def test_networks_share_no_parameters():
    policy = make(IMAGE)
    parts = [policy.actor, *policy.critics, *policy.target_critics]
    owners = [{parameter.data_ptr() for parameter in part.parameters()} for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners))
    first, second = policy.critics
    assert not torch.equal(first.layers[0].weight, second.layers[0].weight)
    assert not any(parameter.requires_grad for parameter in policy.target_critics.parameters())


def test_a_dict_enters_in_the_order_of_its_keys_whatever_order_it_comes_in():
    policy = make(DICT)
    obs = draw(DICT, 4)
    x = policy.encode({"b": obs["b"], "a": obs["a"]})
    expected = torch.cat([torch.nn.functional.one_hot(obs["a"], 3).float(), obs["b"].flatten(1)], -1)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(policy.encode({"a": obs["a"], "b": obs["b"]}), expected)


def test_normalisation_is_by_all_that_was_observed():
    policy = make(normalize_obs=True)
    rows = torch.randn(300, 3) * torch.tensor([1.0, 10, 0.1]) + torch.tensor([0.0, 100, -5])
    for part in rows.split([1, 0, 99, 200]):
        policy.observe(part)
    expected = ((rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-8).sqrt()).clamp(-10, 10)
    torch.testing.assert_close(policy.encode(rows), expected, rtol=1e-4, atol=1e-4)
    assert float(policy.encode(rows + 1e6).max()) == 10
    other = make(normalize_obs=True)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other.encode(rows), policy.encode(rows))


def test_without_normalisation_observe_changes_nothing():
    policy = make()
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    policy.observe(torch.randn(5, 3))
    assert all(torch.equal(before[key], value) for key, value in policy.state_dict().items())


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3),
        BOX(-np.inf, np.inf, (2,), np.float32),
        BOX(np.array([-1, -np.inf], np.float32), np.array([1, 1], np.float32)),
    ],
)
def test_actions_that_are_not_bounded_are_refused(space):
    with pytest.raises(ConfigError, match="finite bounds"):
        make(actions=space)


def test_images_cannot_be_normalised():
    with pytest.raises(ConfigError, match="normalize_obs"):
        make(IMAGE, normalize_obs=True)
