import sys
from importlib.util import find_spec

import gymnasium as gym
import numpy as np
import pytest

from hsw.env import Episode, GoalFunctions, VectorEnv, make_env
from hsw.env.bit_flipping import BitFlipping
from hsw.env.goals import fetch_goals, is_goal_space, read_goals, read_success
from hsw.errors import ConfigError
from hsw.spaces import read_space
from tests.env.helpers import make, play

BITS = "hsw.env.bit_flipping:BitFlipping-v0"
REACH, MAZE = "hsw.env.robotics:FetchReach-v4", "hsw.env.robotics:PointMaze_UMaze-v3"
robotics = pytest.mark.skipif(find_spec("gymnasium_robotics") is None, reason="needs gymnasium-robotics")
envpool = pytest.mark.skipif(find_spec("envpool") is None, reason="needs EnvPool")  # not imported: hsw loads Qt first
backends = pytest.mark.parametrize("backend", ["sync", "async"])


@pytest.fixture
def built():
    envs = []

    def build(id, *args, **kwargs):
        envs.append(make_env(id, *args, **kwargs))
        return envs[-1]

    yield build
    for env in envs:
        env.close()


def goals_near(shape, scale, seed=0):
    generator = np.random.default_rng(seed)
    achieved = generator.normal(size=shape)
    return achieved, achieved + generator.normal(0, scale, shape)


# -- functions of goals ---------------------------------------------------------------------------------------------


@backends
def test_an_environments_functions_tell_what_its_steps_told(built, backend):
    env = built(BITS, backend, 2, kwargs={"num_bits": 2})
    env.reset()
    ends = 0
    for step in play(env, 40):
        goals = step.obs["achieved_goal"], step.obs["desired_goal"], {}
        assert np.array_equal(env.compute_reward(*goals)[step.valid], step.rewards[step.valid])
        assert np.array_equal(env.compute_terminated(*goals)[step.valid], step.terminateds[step.valid])
        ends += step.terminateds.sum()
    assert ends > 3


def test_async_builds_an_environment_of_its_own_only_when_asked(built, monkeypatch):
    env = built(BITS, "async", 1)
    made = []
    build = BitFlipping.__init__
    monkeypatch.setattr(BitFlipping, "__init__", lambda self, **kwargs: (made.append(self), build(self, **kwargs))[1])
    env.reset()
    play(env, 3)
    assert not made
    assert env.compute_reward is env.compute_reward
    assert env.compute_terminated is not None
    assert len(made) == 1


@pytest.mark.parametrize("name", ["Counter", "Goal"])
def test_other_environments_have_none(name):
    env = make(name, 1)
    assert env.compute_reward is None
    assert env.compute_terminated is None


def test_the_native_backend_has_none(built):
    assert built("CartPole-v1", "native", 2).compute_reward is None


def test_a_space_of_goals_needs_all_three_parts():
    def space(**parts):
        return read_space(gym.spaces.Dict({key: gym.spaces.Box(0, 1, shape) for key, shape in parts.items()}))

    assert is_goal_space(space(observation=(5,), achieved_goal=(2,), desired_goal=(2,)))
    assert not is_goal_space(space(observation=(5,), achieved_goal=(2,), desired_goal=(3,)))
    assert not is_goal_space(space(achieved_goal=(2,), desired_goal=(2,)))
    assert not is_goal_space(read_space(gym.spaces.Box(0, 1, (2,))))


def test_functions_of_single_goals_are_applied_to_each_of_a_batch():
    class Single:
        def compute_reward(self, achieved, desired, info):
            return float(np.abs(achieved - desired).sum())

        def compute_terminated(self, achieved, desired, info):
            return bool(np.linalg.norm(achieved - desired) < 1)

    found = read_goals(Single(), (3,))
    achieved, desired = goals_near((4, 5, 3), 0.5)
    rewards, ends = found.compute_reward(achieved, desired, {}), found.compute_terminated(achieved, desired, {})
    assert rewards.shape == ends.shape == (4, 5)
    assert (rewards.dtype, ends.dtype) == (np.float32, bool)
    assert 0 < ends.sum() < 20
    for index in np.ndindex(4, 5):
        assert rewards[index] == pytest.approx(sum(abs(achieved[index] - desired[index])))
        assert ends[index] == (sum((achieved[index] - desired[index]) ** 2) < 1)
    assert found.compute_reward(achieved[0, 0], desired[0, 0], {}) == rewards[0, 0]


def test_a_constant_end_is_none():
    class Endless:
        def compute_reward(self, achieved, desired, info):
            return np.zeros(achieved.shape[:-1])

        def compute_terminated(self, achieved, desired, info):
            return False

    assert read_goals(Endless(), (3,)).compute_terminated is None


# -- robotics -------------------------------------------------------------------------------------------------------


@robotics
def test_fetch_is_stepped_rewarded_and_told_apart_by_its_goals(built):
    env = built(REACH, "sync", 1, kwargs={"max_episode_steps": 3})
    env.reset()
    steps = play(env, 7)
    assert env.compute_terminated is None
    for step in steps:
        rewards = env.compute_reward(step.obs["achieved_goal"], step.obs["desired_goal"], {})
        assert np.array_equal(rewards[step.valid], step.rewards[step.valid])
    assert [(episode.length, episode.success) for episode in env.pop_episodes()] == [(3, False)] * 2
    for threshold in (0.05, 0.2):
        env._backend.backend.envs[0].unwrapped.distance_threshold = threshold
        for reward_type in ("sparse", "dense"):
            env._backend.backend.envs[0].unwrapped.reward_type = reward_type
            goals = goals_near((3, 200, 3), threshold / 2)
            own = fetch_goals(reward_type, threshold).compute_reward(*goals, {})
            assert own.dtype == np.float32
            assert len(np.unique(own)) >= 2
            assert np.array_equal(own, env.compute_reward(*goals, {}))


@robotics
def test_a_maze_ends_at_each_goal_that_is_reached(built):
    env = built(MAZE, "sync", 1, kwargs={"continuing_task": False})
    achieved, desired = goals_near((50, 2), 0.4)
    near = np.array([sum((a - d) ** 2) ** 0.5 <= 0.45 for a, d in zip(achieved, desired, strict=True)])
    assert 5 < near.sum() < 45
    assert np.array_equal(env.compute_terminated(achieved, desired, {}), near)
    assert np.array_equal(env.compute_reward(achieved, desired, {}), near.astype(np.float32))
    assert built(MAZE, "sync", 1).compute_terminated is None  # a task that continues


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    monkeypatch.delitem(sys.modules, "hsw.env.robotics", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'hsw\[robotics\]'"):
        make_env(REACH, "sync", 1)


@envpool
@pytest.mark.parametrize(
    ("task", "kwargs"), [("FetchReach-v4", {"distance_threshold": 0.1}), ("FetchReachDense-v4", {})]
)
def test_envpools_fetch_pays_what_our_reward_says(built, task, kwargs):
    env = built(task, "envpool", 8, kwargs={**kwargs, "max_episode_steps": 10})
    assert is_goal_space(env.observation_space)
    env.reset()
    steps = play(env, 60)
    for step in steps:
        rewards = env.compute_reward(step.obs["achieved_goal"], step.obs["desired_goal"], {})
        assert np.allclose(rewards[step.valid], step.rewards[step.valid], atol=1e-6)
    assert len(np.unique([step.rewards[step.valid] for step in steps if step.valid.all()])) >= 2
    assert env.compute_terminated is None
    last = [step.obs for step in steps if step.truncateds.any()]
    distances = np.linalg.norm([obs["achieved_goal"] - obs["desired_goal"] for obs in last], axis=-1).ravel()
    successes = [episode.success for episode in env.pop_episodes()]
    assert successes == (distances < kwargs.get("distance_threshold", 0.05)).tolist()
    assert len(successes) == 40


# -- success --------------------------------------------------------------------------------------------------------


@backends
def test_an_episode_tells_whether_its_last_step_succeeded(built, backend):
    env = built(BITS, backend, 2, kwargs={"num_bits": 3})
    env.reset()
    play(env, 60)
    episodes = env.pop_episodes()
    # The last reward is 0 at the goal, and -1 before it.
    assert [episode.success for episode in episodes] == [e.episode_return > -e.length for e in episodes]
    assert {episode.success for episode in episodes} == {True, False}


@backends
def test_an_environment_that_does_not_tell_has_no_success(backend):
    env = make("Counter", 2, backend, kwargs={"length": 2})
    env.reset()
    play(env, 2)
    env.close()
    assert env.pop_episodes() == [Episode(0, 2.0, 2, None), Episode(1, 2.0, 2, None)]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"is_success": np.array([True, False]), "_is_success": np.array([True, True])}, [True, False]),
        ({"is_success": np.array([True, True]), "_is_success": np.array([False, True])}, [None, True]),
        ({"success": np.array([0.0, 1.0])}, [False, True]),
        ({"is_success": np.zeros((2, 2))}, [None, None]),
        ({}, [None, None]),
    ],
    ids=["gymnasium", "masked", "envpool", "other", "untold"],
)
def test_success_is_read_from_either_form_of_info(info, expected):
    assert [read_success(info, index) for index in (0, 1)] == expected


def test_functions_may_be_handed_over_as_they_are():
    functions = GoalFunctions(lambda achieved, desired, info: np.arange(len(achieved), dtype=np.float32))
    other = make("Goal", 1)
    env = VectorEnv(other._backend.backend, other.observation_space, other.action_space, goals=functions)
    assert env.compute_reward(np.zeros((3, 2)), np.zeros((3, 2)), {}).tolist() == [0, 1, 2]
    assert env.compute_terminated is None
