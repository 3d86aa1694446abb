import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hsw.env import make_env
from hsw.env.bit_flipping import BitFlipping
from hsw.errors import ConfigError

ID = "hsw.env.bit_flipping:BitFlipping-v0"


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_a_gymnasium_environment(continuous):
    check_env(gym.make(ID, continuous=continuous).unwrapped, skip_render_check=True)


def test_every_episode_begins_elsewhere_than_at_its_goal():
    env = BitFlipping(num_bits=2)
    seen = set()
    for seed in range(200):
        obs, info = env.reset(seed=seed)
        assert not info["is_success"]
        assert obs["observation"].tolist() == obs["achieved_goal"].tolist() != obs["desired_goal"].tolist()
        seen.add((*obs["achieved_goal"].tolist(), *obs["desired_goal"].tolist()))
    assert len(seen) == 4 * 3  # every pair of different rows


def test_a_positive_action_flips_its_bit():
    env = BitFlipping(num_bits=3)
    before = env.reset(seed=0)[0]["observation"]
    after = env.step(np.array([0.1, 0.0, -0.9], np.float32))[0]["observation"]
    assert (before != after).tolist() == [True, False, False]


def test_a_discrete_action_flips_the_bit_that_it_names():
    env = BitFlipping(num_bits=3, continuous=False)
    before = env.reset(seed=0)[0]["observation"]
    after = env.step(np.int64(2))[0]["observation"]
    assert (before != after).tolist() == [False, False, True]


@pytest.mark.parametrize("continuous", [True, False])
def test_the_goal_ends_the_episode_with_success(continuous):
    env = BitFlipping(num_bits=6, continuous=continuous)
    obs, _ = env.reset(seed=3)
    wrong = obs["observation"] != obs["desired_goal"]
    actions = [np.where(wrong, 1, -1)] if continuous else np.flatnonzero(wrong)
    rows = [env.step(action)[1:] for action in actions]
    assert rows[:-1] == [(-1.0, False, False, {"is_success": False})] * (len(actions) - 1)
    assert rows[-1] == (0.0, True, False, {"is_success": True})


def test_an_episode_is_truncated_after_as_many_steps_as_bits():
    env = BitFlipping(num_bits=4)
    for seed in range(2):  # the second begins to count afresh
        env.reset(seed=seed)
        rows = [env.step(-np.ones(4))[1:4] for _ in range(4)]
        assert rows == [(-1.0, False, False)] * 3 + [(-1.0, False, True)]


def test_rewards_and_ends_of_batches_of_goals_are_those_of_each():
    env = BitFlipping(num_bits=3)
    achieved, desired = np.random.default_rng(0).integers(0, 2, (2, 5, 40, 3)).astype(np.float32)
    pairs = list(zip(achieved, desired, strict=True))
    reached = [[a.tolist() == d.tolist() for a, d in zip(*rows, strict=True)] for rows in pairs]
    assert np.sum(reached) > 5
    rewards = env.compute_reward(achieved, desired, {})
    assert rewards.dtype == np.float32
    assert rewards.tolist() == [[0.0 if flag else -1.0 for flag in row] for row in reached]
    assert env.compute_terminated(achieved, desired, {}).tolist() == reached


def test_no_bits_are_refused():
    with pytest.raises(ConfigError, match="num_bits=0 must be at least 1"):
        make_env(ID, num_envs=1, kwargs={"num_bits": 0})
