"""Whatever is called an environment becomes a VectorEnv, for training, for evaluation and for actors."""

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from hsw.env import VectorEnv, as_vector_env, make_env, remaker
from hsw.errors import ConfigError, EnvError
from tests.env.helpers import column, make, play
from tests.envs import Counter, Homing, Noise
from tests.helpers import equal


def pair():
    return SyncVectorEnv([lambda: Counter(length=2)] * 2)


KINDS = {
    "an environment": (lambda: Counter(length=2), 1),
    "a class": (lambda: OfTwo, 3),
    "a function": (lambda: lambda: Counter(length=2), 3),
    "a SyncVectorEnv": (pair, 2),
    "a wrapped SyncVectorEnv": (lambda: RecordEpisodeStatistics(pair()), 2),
    "an AsyncVectorEnv": (lambda: AsyncVectorEnv([lambda: Counter(length=2)] * 2), 2),
    "a function that makes a vector": (lambda: pair, 2),
    "a VectorEnv": (lambda: make("Counter", 2, kwargs={"length": 2}), 2),
    "a function that makes a VectorEnv": (lambda: lambda: make("Counter", 2, kwargs={"length": 2}), 2),
}


class OfTwo(Counter):
    def __init__(self):
        super().__init__(length=2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_environment_becomes_a_vector_env(kind):
    make_it, num_envs = KINDS[kind]
    env = as_vector_env(make_it(), seed=3, num_envs=3)
    assert isinstance(env, VectorEnv)
    assert env.num_envs == num_envs
    env.reset()
    steps = play(env, 4)
    env.close()
    assert column(steps, "obs") == [[1.0], [2.0], [0.0], [1.0]]
    assert column(steps, "valid") == [True, True, False, True]


def test_a_vector_env_is_returned_as_it_is():
    env = make("Counter", 2)
    assert as_vector_env(env) is env
    assert as_vector_env(lambda: env) is env


@pytest.mark.parametrize("single", [Noise, lambda: SyncVectorEnv([Noise])])
def test_episodes_are_those_of_make_env_with_the_same_seed(single):
    one, other = as_vector_env(single(), seed=4), make("Noise", 1, seed=4)
    assert equal(one.reset(), other.reset())
    assert equal([step[:5] for step in play(one, 20)], [step[:5] for step in play(other, 20)])
    assert one.exact


def test_other_vector_environments_are_seeded():
    def first(seed):
        return as_vector_env(RecordEpisodeStatistics(SyncVectorEnv([Noise])), seed=seed).reset()

    assert equal(first(1), first(1))
    assert not equal(first(1), first(2))


def test_options_and_training_are_the_vector_envs():
    env = as_vector_env(Counter, num_envs=2, training=False, frame_stack=2, clip_reward=0.5)
    assert (env.training, env.observation_space.shape) == (False, (2,))
    env.reset()
    assert column(play(env, 1), "rewards") == [1.0]


def test_a_goal_environment_tells_its_rewards():
    for env in (Homing(), Homing, lambda: SyncVectorEnv([Homing])):
        assert as_vector_env(env).compute_reward is not None


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (3, "must be an environment or a function that makes one, not int"),
        (lambda: 3, "the function that makes the environment returned int"),
        (lambda: gym.make("Nothing-v0"), "Nothing"),
    ],
)
def test_what_is_no_environment_is_refused(env, message):
    with pytest.raises(ConfigError, match=message):
        as_vector_env(env)


def test_spaces_that_are_not_supported_are_refused():
    env = Counter()
    env.observation_space = gym.spaces.Text(3)
    with pytest.raises(ConfigError, match="Text spaces are not supported"):
        as_vector_env(env)


def test_a_function_that_fails_keeps_its_place():
    def broken():
        return {}["boom"]

    with pytest.raises(EnvError, match=r"could not be built: KeyError: 'boom' at .*test_adapt.py:\d+") as caught:
        as_vector_env(broken)
    assert "Traceback" in caught.value.details


@pytest.mark.parametrize(
    "env",
    [
        lambda: gym.make("CartPole-v1"),
        lambda: lambda: gym.make("CartPole-v1"),
        lambda: gym.make_vec("CartPole-v1", 2),
        lambda: lambda: SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2),
        lambda: SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2),
        lambda: AsyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2),
        lambda: make_env("CartPole-v1", num_envs=2),
        lambda: as_vector_env(lambda: gym.make("CartPole-v1"), num_envs=2),
    ],
)
def test_actors_build_every_kind_anew(env):
    remake = cloudpickle.loads(cloudpickle.dumps(remaker(env(), 2)))
    one, other, evaluation = remake(seed=5), remake(seed=5), remake(seed=5, training=False)
    assert one.num_envs == 2
    assert equal(one.reset(), other.reset())
    assert (one.training, evaluation.training) == (True, False)
    assert one.step(np.zeros(2, int)).valid.all()


@pytest.mark.parametrize("env", [Counter, lambda: RecordEpisodeStatistics(pair())])
def test_what_has_no_spec_cannot_be_built_anew(env):
    with pytest.raises(ConfigError, match=r"has no spec; make it with gymnasium\.make"):
        remaker(env(), 2)
