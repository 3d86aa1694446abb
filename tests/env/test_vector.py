import multiprocessing

import gymnasium as gym
import numpy as np
import pytest

from hsw.env import Episode, make_env
from hsw.errors import ConfigError
from tests.env.helpers import column, make, play
from tests.helpers import equal

# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("truncate", [True, False])
def test_the_row_after_a_done_is_a_reset_that_counts_nowhere(backend, truncate):
    env = make("Counter", 2, backend, kwargs={"length": 2, "truncate": truncate})
    first, steps = env.reset(), play(env, 7)
    env.close()
    done = [False, True, False, False, True, False, False]
    assert first[0].tolist() == [0.0]
    # The obs at a done is the true final one; the reset row leads to the first obs of the next episode.
    assert column(steps, "obs") == [[1.0], [2.0], [0.0], [1.0], [2.0], [0.0], [1.0]]
    assert column(steps, "valid") == [True, True, False, True, True, False, True]
    assert column(steps, "rewards") == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert column(steps, "truncateds") == [d and truncate for d in done]
    assert column(steps, "terminateds") == [d and not truncate for d in done]
    assert env.pop_episodes() == [Episode(i, 2.0, 2) for i in (0, 1, 0, 1)]


def test_one_step_episodes_alternate_with_resets():
    env = make("OneStep", 1)
    env.reset()
    steps = play(env, 4)
    assert column(steps, "valid") == [True, False, True, False]
    assert column(steps, "terminateds") == [True, False, True, False]
    assert [episode.length for episode in env.pop_episodes()] == [1, 1]


def test_rows_have_fixed_dtypes():
    env = make("Noise", 3)
    env.reset()
    step = play(env, 1)[0]
    assert [getattr(step, name).dtype for name in ("obs", "rewards")] == [np.float32] * 2
    assert [getattr(step, name).dtype for name in ("terminateds", "truncateds", "valid")] == [bool] * 3


def test_the_native_backend_keeps_the_same_time():
    env = make_env("CartPole-v1", "native", 3)
    env.reset()
    steps = play(env, 60)
    env.close()
    dones = np.stack([step.terminateds | step.truncateds for step in steps])
    valid = np.stack([step.valid for step in steps])
    assert np.array_equal(valid[1:], ~dones[:-1])
    assert not np.stack([step.rewards for step in steps])[~valid].any()
    assert dones.any()


def test_a_second_reset_starts_afresh():
    env = make("Counter", 2, kwargs={"length": 3})
    env.reset()
    play(env, 2)
    for _ in range(2):  # in mid-episode, and at a done
        env.reset()
        steps = play(env, 3)
        assert column(steps, "valid") == [True] * 3
        assert column(steps, "terminateds") == [False, False, True]
        assert env.pop_episodes() == [Episode(0, 3.0, 3), Episode(1, 3.0, 3)]


# -- seeds ----------------------------------------------------------------------------------------------------------


def recorded(backend, num_envs=3, name="Noise", seed=1, **kwargs):
    env = make(name, num_envs, backend, seed=seed, **kwargs)
    steps = [env.reset(), *(tuple(step[:5]) for step in play(env, 30))]
    episodes = env.pop_episodes()
    env.close()
    return [*steps, episodes]


def test_sync_and_async_are_the_same_bit_for_bit():
    normalized = {"normalize_obs": True, "normalize_reward": True}
    assert equal(recorded("sync", **normalized), recorded("async", **normalized))


def test_a_seed_repeats_a_run_and_another_seed_does_not():
    assert equal(recorded("sync"), recorded("sync"))
    assert not equal(recorded("sync"), recorded("sync", seed=2))


def test_an_env_plays_the_same_episodes_however_many_there_are():
    few, many = recorded("sync", 1), recorded("sync", 3)
    assert np.array_equal(few[0][0], many[0][0])


def test_environments_and_episodes_differ_from_one_another():
    env = make("Noise", 4)
    firsts = list(env.reset())
    for step in play(env, 20):
        firsts += list(step.obs[~step.valid])
    assert len({tuple(first) for first in firsts}) == len(firsts) > 8


# -- actions and observations ---------------------------------------------------------------------------------------


def test_continuous_actions_are_clipped_to_the_bounds_of_their_dimension():
    env = make("Reach", 2)
    env.reset()
    obs = env.step(np.array([[-5.0, -5.0], [5.0, 2.0]])).obs
    assert obs.tolist() == [[-1.0, 0.0], [1.0, 2.0]]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_discrete_actions_come_flat_or_as_a_column(shape):
    env = make("Bandit", 2)
    wanted = env.reset().argmax(1)
    assert env.step(wanted.reshape(shape)).rewards.tolist() == [1.0, 1.0]


def test_a_discrete_space_that_starts_elsewhere_is_counted_from_zero():
    class Shifted(gym.Env):
        observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
        action_space = gym.spaces.Discrete(3, start=-1)

        def reset(self, **kwargs):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            assert self.action_space.contains(action)
            return np.array([action], np.float32), 0.0, False, False, {}

    gym.register("Shifted-v0", Shifted)
    env = make_env("Shifted-v0", num_envs=3)
    env.reset()
    assert env.step(np.array([0, 1, 2])).obs.ravel().tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_observations_stay_what_they_were_although_buffers_are_reused(backend):
    env = make("ReusedBuffer", 2, backend)
    observations = [env.reset(), *(step.obs for step in play(env, 4))]
    env.close()
    assert [float(obs[0, 0]) for obs in observations] == [0, 1, 2, 3, 4]


def test_dict_observations_come_as_a_dict_of_batches():
    env = make("Goal", 2)
    assert env.reset()["desired_goal"].tolist() == [[10.0, 10.0]] * 2
    assert play(env, 1)[0].obs["observation"].tolist() == [[1.0, 1.0]] * 2


@pytest.mark.parametrize(("training", "expected"), [(True, [0.5, 0.5]), (False, [1.0, 1.0])])
def test_rewards_are_clipped_in_training_only_and_episodes_count_the_true_ones(training, expected):
    env = make("Counter", 1, kwargs={"length": 2}, clip_reward=0.5, training=training)
    env.reset()
    assert column(play(env, 2), "rewards") == expected
    assert env.pop_episodes() == [Episode(0, 2.0, 2)]


def test_an_evaluation_changes_the_kwargs_that_it_names():
    options = {"kwargs": {"length": 2, "truncate": True}, "eval_kwargs": {"length": 4}}
    lengths = {}
    for training in (True, False):
        env = make("Counter", 1, **options, training=training)
        env.reset()
        steps = play(env, 4)
        lengths[training] = column(steps, "truncateds").index(True) + 1
    assert lengths == {True: 2, False: 4}


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Nothing-v0", {}, "env.id=Nothing-v0"),
        ("nowhere.to.be_found:Env-v0", {}, "env.id=nowhere"),
        ("tests.envs:Counter-v0", {"kwargs": {"lenght": 3}}, "lenght"),
        ("tests.envs:Counter-v0", {"backend": "async", "kwargs": {"lenght": 3}}, "lenght"),
        ("CartPole-v1", {"backend": "native", "kwargs": {"lenght": 3}}, "lenght"),
        ("tests.envs:Goal-v0", {"frame_stack": 2}, "frame_stack needs a Box"),
    ],
)
def test_environments_that_cannot_be_are_refused_naming_them(name, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        make_env(name, num_envs=1, **kwargs)


def test_no_process_is_left_after_close():
    before = set(multiprocessing.active_children())
    env = make("Counter", 2, "async")
    env.reset()
    assert len(multiprocessing.active_children()) == len(before) + 2
    env.close()
    env.close()
    assert set(multiprocessing.active_children()) == before
