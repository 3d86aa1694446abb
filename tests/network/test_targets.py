"""Encoders and distributions as targets: they are called with the space, and with what the config says."""

import copy

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import nn

from hsw.build import build
from hsw.config.resolved import check
from hsw.errors import ConfigError
from hsw.network import (
    ActorCritic,
    Categorical,
    DecoupledActorCritic,
    DiagGaussian,
    Distribution,
    RecurrentActorCritic,
    SoftActorCritic,
)
from hsw.network.distribution import make_distribution
from hsw.spaces import read_space, space_config
from tests.runs import agent_of, compose, train_on

HERE = "tests.network.test_targets"
KINDS = [ActorCritic, DecoupledActorCritic, RecurrentActorCritic]


class Wide(nn.Module):
    """An encoder of a user's own."""

    def __init__(self, space, width=3, sizes=()):
        super().__init__()
        assert type(sizes) in (list, tuple)
        self.linear, self.out_dim = nn.Linear(*space.shape, width), width

    def forward(self, obs):
        return self.linear(obs)


class Tempered(Categorical):
    """A distribution of a user's own."""

    def __init__(self, space, temperature=1.0):
        super().__init__(space)
        self.temperature = temperature

    def choose(self, params, deterministic):
        return super().choose(params / self.temperature, deterministic)

    def log_prob_and_entropy(self, params, actions):
        return super().log_prob_and_entropy(params / self.temperature, actions)


def wide(space, width):
    """A function does as well as a class."""
    return Wide(space, width)


@pytest.mark.parametrize(("recipe", "target"), [("ppo", "wide"), ("daac", "Wide"), ("impala", "Wide")])
def test_a_config_names_an_encoder_that_takes_the_space(recipe, target):
    override = f"network.encoder={{_target_:{HERE}.{target},width:5}}"
    with agent_of(f"agent={recipe}", "env=cartpole", "allow=[tests]", override) as agent:
        assert type(agent.policy.encoder) is Wide
        assert agent.policy.encoder.linear.weight.shape == (5, 4)
        assert agent.policy.encoder_names() == {"": "Wide (4 float32)"}


def test_an_encoders_lists_are_plain_and_the_config_stays_as_it_was():
    config = compose("allow=[tests]", f"network.encoder={{_target_:{HERE}.Wide,sizes:[1,2]}}")
    config.observation_space, config.action_space = space_config(Box(-1, 1, (4,))), space_config(Discrete(2))
    before = copy.deepcopy(config)
    assert build(config.network).encoder.out_dim == 3
    assert config == before


def test_sac_takes_an_encoder_from_a_config():
    override = f"network.encoder={{_target_:{HERE}.Wide,width:5}}"
    with agent_of("agent=sac", "env=pendulum", "allow=[tests]", override) as agent:
        assert [type(network.encoder) for network in (agent.policy.actor, *agent.policy.critics)] == [Wide] * 3


def test_a_config_names_a_distribution_that_takes_the_space_and_an_agent_learns_with_it():
    override = f"network.distribution={{_target_:{HERE}.Tempered,temperature:2.0}}"
    with agent_of("agent=ppo", "env=cartpole", "allow=[tests]", override) as agent:
        assert type(agent.policy.distribution) is Tempered
        assert agent.policy.distribution.temperature == 2.0
        train_on(agent, 64)
        assert agent.algorithm.num_updates >= 2


@pytest.mark.parametrize("part", ["encoder", "distribution"])
def test_a_target_of_an_unknown_package_or_argument_is_refused(part):
    with pytest.raises(ConfigError, match="is not allowed"):
        check(compose(f"network.{part}={{_target_:{HERE}.Wide}}"))
    with pytest.raises(ConfigError, match=f"there is no network.{part}.widht"):
        check(compose("allow=[tests]", f"network.{part}={{_target_:{HERE}.Wide,widht:3}}"))
    with pytest.raises(ConfigError, match=f"there is no network.{part}.space"):  # the program hands it over
        check(compose("allow=[tests]", f"network.{part}={{_target_:{HERE}.Wide,space:3}}"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_takes_a_distribution(kind):
    policy = kind(Box(-1, 1, (4,)), Discrete(3), distribution=lambda space: Tempered(space, 3.0))
    assert policy.distribution.temperature == 3.0
    named = kind(Box(-1, 1, (4,)), Box(-1, 1, (2,)), distribution="diag_gaussian")
    assert type(named.distribution) is DiagGaussian


def test_a_distribution_needs_the_members_and_not_the_class():
    class Own(nn.Module):
        params_dim = action_dim = 2
        sample = mode = log_prob = log_prob_and_entropy = choose = features = lambda self, *args: None

    space = read_space(Discrete(2))
    assert type(make_distribution(space, lambda space: Own())) is Own
    with pytest.raises(ConfigError, match="Linear is no distribution of actions: it has no params_dim"):
        make_distribution(space, lambda space: nn.Linear(1, 1))


def test_a_name_that_does_not_take_the_actions_is_refused():
    with pytest.raises(ConfigError, match="distribution=categorical does not take Box actions; use auto or diag_gau"):
        make_distribution(read_space(Box(-1, 1, (2,))), "categorical")
    with pytest.raises(ConfigError, match="Dict actions are not supported"):
        make_distribution(read_space(Dict({"a": Discrete(2)})), "categorical")


def test_sac_has_the_squashed_gaussian_and_no_other():
    with pytest.raises(ConfigError, match="squashed Gaussian"):
        SoftActorCritic(Box(-1, 1, (4,)), Box(-1, 1, (2,)), distribution="diag_gaussian")
    with pytest.raises(ConfigError, match=r"network\.distribution=categorical must be one of auto"):
        check(compose("agent=sac", "env=pendulum", "network.distribution=categorical"))


def test_what_is_exported_is_what_one_derives_from():
    assert issubclass(Tempered, Distribution)
    assert torch.allclose(
        Tempered(read_space(Discrete(2))).log_prob(torch.zeros(1, 2), torch.tensor([0])).exp(), torch.tensor(0.5)
    )
