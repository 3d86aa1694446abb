import numpy as np
import pytest

from hsw.env.normalize import ObsNormalizer, RewardNormalizer, RunningMoments
from tests.env.helpers import make, play, random_actions


def moments(rows):
    """Mean and variance, column by column, in plain Python."""
    columns = list(zip(*[list(map(float, np.ravel(row))) for row in rows], strict=True))
    means = [sum(column) / len(column) for column in columns]
    variances = [sum((x - m) ** 2 for x in c) / len(c) for c, m in zip(columns, means, strict=True)]
    return np.array(means), np.array(variances)


def test_moments_of_a_stream_are_those_of_all_its_rows():
    generator, running, rows = np.random.default_rng(0), RunningMoments((2,)), []
    for count in (1, 5, 0, 3, 50, 1):
        rows += list(new := generator.normal(100, 0.1, (count, 2)))
        running.update(new)
    mean, var = moments(rows)
    np.testing.assert_allclose(running.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(running.var, var, rtol=1e-9)
    assert running.count == len(rows)


def test_restored_moments_continue_the_stream():
    one, other = RunningMoments((2,)), RunningMoments((2,))
    rows = np.random.default_rng(0).normal(size=(8, 2))
    one.update(rows[:5])
    other.load_state_dict(one.state_dict())
    one.update(rows[5:])
    other.update(rows[5:])
    assert np.array_equal(one.mean, other.mean)
    assert np.array_equal(one.var, other.var)


def naive_play(env, raw, count):
    """Step both, and normalise the raw one's observations and rewards by the definitions, row by row."""
    obs = raw.reset()
    seen, returns, running, expected = list(obs), [], np.zeros(env.num_envs), []
    for action in random_actions(env, count):
        step = raw.step(action)
        dones = step.terminateds | step.truncateds
        rewards = step.rewards.astype(float)
        for n in range(env.num_envs):
            if step.valid[n]:
                running[n] = 0.9 * running[n] + rewards[n]
                returns.append(running[n])
            if dones[n]:
                running[n] = 0.0
            else:
                seen.append(step.obs[n])  # an observation from which an action is taken
        mean, var = moments(seen)
        scaled = np.clip((step.obs - mean) / np.sqrt(var + 1e-8), -10, 10)
        spread = moments([[r] for r in returns])[1][0]
        paid = np.clip(rewards / (spread + 1e-8) ** 0.5, -10, 10)
        expected.append((scaled, paid))
    return expected


def test_normalised_rows_are_the_definition_without_reset_rows():
    options = {"normalize_obs": True, "normalize_reward": True, "discount": 0.9}
    env, raw = make("Noise", 3, **options), make("Noise", 3)
    env.reset()
    steps = play(env, 30)
    assert not np.stack([step.valid for step in steps]).all()
    for step, (obs, rewards) in zip(steps, naive_play(env, raw, 30), strict=True):
        np.testing.assert_allclose(step.obs, obs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(step.rewards, rewards, rtol=1e-4, atol=1e-5)
        assert step.obs.dtype == np.float32


def test_each_observation_that_starts_a_row_is_counted_once():
    env = make("Counter", 1, kwargs={"length": 2}, normalize_obs=True)
    env.reset()
    play(env, 5)  # obs 0 1 (2) 0 1 (2), in brackets those that end an episode
    statistics = env.obs_statistics()[""]
    assert statistics["count"] == 4
    assert float(statistics["mean"]) == pytest.approx(0.5)


def test_an_episodes_true_return_is_reported():
    kwargs = {"kwargs": {"length": 4}, "normalize_reward": True, "clip_reward": 0.1}
    env = make("Counter", 1, **kwargs)
    env.reset()
    play(env, 4)
    assert env.pop_episodes()[0].episode_return == 4.0


def test_outliers_are_clipped_to_ten_deviations():
    normalizer = ObsNormalizer((1,))
    normalizer(np.array([[0.0], [2.0]]), np.ones(2, bool))
    normalizer.training = False
    assert normalizer(np.array([[1e9], [-1e9]]), np.ones(2, bool)).tolist() == [[10.0], [-10.0]]
    rewards = RewardNormalizer(1, 0.9)
    for _ in range(200):
        rewards(np.zeros(1), np.zeros(1, bool), np.ones(1, bool))
    assert rewards(np.array([1e9]), np.ones(1, bool), np.ones(1, bool)).tolist() == [10.0]


def test_rewards_keep_their_sign():
    env = make("Counter", 2, kwargs={"length": 3}, normalize_reward=True)
    env.reset()
    assert all((step.rewards[step.valid] > 0).all() for step in play(env, 10))


def test_an_evaluation_takes_the_statistics_over_and_leaves_them():
    training, evaluation = (make("Noise", 2, normalize_obs=True, training=training) for training in (True, False))
    training.reset()
    play(training, 20)
    evaluation.load_obs_statistics(training.obs_statistics())
    before = training.obs_statistics()[""]
    raw = make("Noise", 2)
    scaled = (raw.reset() - before["mean"].numpy()) / np.sqrt(before["var"].numpy() + 1e-8)
    np.testing.assert_allclose(evaluation.reset(), scaled, rtol=1e-5)
    play(evaluation, 5)
    after = evaluation.obs_statistics()[""]
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_evaluation_leaves_rewards_as_they_are():
    env = make("Counter", 1, normalize_reward=True, clip_reward=0.1, training=False)
    env.reset()
    assert play(env, 1)[0].rewards.tolist() == [1.0]


def test_each_part_of_a_dict_has_statistics_of_its_own():
    env = make("Goal", 2, kwargs={"length": 99}, normalize_obs=True)
    env.reset()
    play(env, 4)
    means = {key: float(state["mean"][0]) for key, state in env.obs_statistics().items()}
    assert means == {"observation": pytest.approx(2.0), "desired_goal": pytest.approx(12.0)}


def test_the_space_becomes_that_of_normalised_numbers():
    space = make("Noise", 1, normalize_obs=True).observation_space
    assert (space.dtype, space.low, space.high) == ("float32", -10.0, 10.0)
