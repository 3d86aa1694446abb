from importlib.util import find_spec

import numpy as np
import pytest

from hsw.env import make_env, make_procgen
from hsw.errors import ConfigError
from tests.env.helpers import play
from tests.helpers import equal

# Not importorskip: hsw must be the first to import EnvPool, which looks for Qt then.
pytestmark = [
    pytest.mark.skipif(find_spec("envpool") is None, reason="EnvPool is not installed"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def cartpole():
    envs = []

    def build(**kwargs):
        envs.append(make_env("CartPole-v1", "envpool", 3, **kwargs))
        return envs[-1]

    yield build
    for env in envs:
        env.close()


def test_rows_keep_the_same_time_as_gymnasiums(cartpole):
    env = cartpole()
    env.reset()
    steps = play(env, 80)
    dones = np.stack([step.terminateds | step.truncateds for step in steps])
    valid = np.stack([step.valid for step in steps])
    obs = np.stack([step.obs for step in steps])
    assert dones.sum() > 3
    assert np.array_equal(valid[1:], ~dones[:-1])
    assert not np.stack([step.rewards for step in steps])[~valid].any()
    assert (np.abs(obs[~valid]) <= 0.05).all()  # the first of the next episode
    # CartPole ends beyond 2.4 or 12 degrees: the obs at a done is the final one.
    assert ((np.abs(obs[dones][:, 0]) > 2.4) | (np.abs(obs[dones][:, 2]) > 12 * np.pi / 180)).all()


def test_episodes_are_counted_as_they_were_played(cartpole):
    env = cartpole()
    env.reset()
    valid = sum(int(step.valid.sum()) for step in play(env, 80))
    episodes = env.pop_episodes()
    assert all(episode.episode_return == episode.length for episode in episodes)
    assert sum(episode.length for episode in episodes) + int(env.state_dict()["lengths"].sum()) == valid


def test_a_seed_repeats_a_run_and_another_does_not(cartpole):
    def recorded(seed):
        env = cartpole(seed=seed)
        return [env.reset(), *(step[:5] for step in map(tuple, play(env, 30)))]

    assert equal(recorded(1), recorded(1))
    assert not equal(recorded(1), recorded(2))


def test_observations_stay_what_they_were(cartpole):
    env = cartpole()
    first = env.reset()
    before = first.copy()
    play(env, 3)
    assert np.array_equal(first, before)


def test_a_resume_starts_fresh_episodes_with_a_reset_row(cartpole):
    one, other = cartpole(), cartpole()
    one.reset()
    play(one, 20)
    assert "not exact" in other.load_state_dict(one.state_dict())
    assert not other.step(np.zeros(3, int)).valid.any()
    assert other.step(np.zeros(3, int)).valid.all()


def test_unknown_tasks_and_options_are_refused():
    with pytest.raises(ConfigError, match=r"no task CartPoel-v1; near to it: .*CartPole-v1"):
        make_env("CartPoel-v1", "envpool", 1)
    with pytest.raises(ConfigError, match="pole_length"):
        make_env("CartPole-v1", "envpool", 1, kwargs={"pole_length": 2})
    with pytest.raises(ConfigError, match=r"env.game=coinrnu.*coinrun"):
        make_procgen("coinrnu")


def test_procgen_gives_pixels_and_trains_on_the_levels_asked_for():
    env = make_procgen("coinrun", num_levels=1, num_envs=4)
    other = make_procgen("coinrun", num_levels=1, num_envs=4, training=False)
    spec, first, other_first = env.observation_space, env.reset(), other.reset()
    env.close()
    other.close()
    assert spec.is_image
    assert first.shape == (4, *spec.shape)
    assert first.dtype == np.uint8
    assert all(np.array_equal(first[0], obs) for obs in first[1:])  # one level
    assert not all(np.array_equal(other_first[0], obs) for obs in other_first[1:])  # all levels
