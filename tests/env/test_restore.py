"""What state_dict and load_state_dict of the vector environment restore."""

import copy

import numpy as np
import pytest

from hsw.env import make_env
from hsw.run.checkpoint import clone_state
from tests.env.helpers import make, play, random_actions
from tests.helpers import equal

EVERYTHING = {"normalize_obs": True, "normalize_reward": True, "frame_stack": 2}


def rows(env, actions):
    return [tuple(env.step(action))[:5] for action in actions], env.pop_episodes()


def interrupted(name, backend, cut, count=24, **kwargs):
    """The rows after the cut: of a run that went on, and of one restored there."""
    one, other = (make(name, 3, backend, **kwargs) for _ in range(2))
    actions = random_actions(one, count)
    one.reset()
    rows(one, actions[:cut])
    state = clone_state(one.state_dict())
    expected = rows(one, actions[cut:])
    said = other.load_state_dict(state)
    got = rows(other, actions[cut:])
    one.close()
    other.close()
    return said, got, expected


# The cuts fall in mid-episode, right after a done, and right after a reset of the three environments.
@pytest.mark.parametrize("cut", range(12))
def test_a_restored_run_is_the_one_that_went_on(cut):
    said, got, expected = interrupted("Noise", "sync", cut, **EVERYTHING)
    assert said is None
    assert equal(got, expected)


@pytest.mark.parametrize("name", ["Counter", "OneStep", "Goal", "ReusedBuffer", "Endless"])
@pytest.mark.parametrize("cut", [0, 4, 5, 6])
def test_every_kind_of_env_is_restored(name, cut):
    said, got, expected = interrupted(name, "sync", cut)
    assert said is None
    assert equal(got, expected)


@pytest.mark.parametrize("cut", [3, 4])
def test_workers_are_restored(cut):
    said, got, expected = interrupted("Noise", "async", cut, **EVERYTHING)
    assert said is None
    assert equal(got, expected)


def test_a_run_can_be_interrupted_again_and_again():
    straight, broken = make("Noise", 3, **EVERYTHING), make("Noise", 3, **EVERYTHING)
    actions = random_actions(straight, 20)
    straight.reset()
    broken.reset()
    expected, got = [], []
    for action in actions:
        expected += rows(straight, [action])
        got += rows(broken, [action])
        state = clone_state(broken.state_dict())
        broken = make("Noise", 3, **EVERYTHING)
        assert broken.load_state_dict(state) is None
    assert equal(got, expected)


def test_a_state_does_not_change_with_the_run():
    env = make("Noise", 2, **EVERYTHING)
    env.reset()
    play(env, 5)
    state = env.state_dict()
    before = copy.deepcopy(state)
    play(env, 9)
    assert equal(state, before)


def test_actions_of_finished_episodes_are_forgotten():
    env = make("Counter", 2, kwargs={"length": 5})
    env.reset()
    play(env, 200)
    assert len(env.state_dict()["actions"]) <= 6


def test_an_env_that_does_not_come_back_is_named():
    one, other = make("Noise", 2), make("Noise", 2)
    one.reset()
    play(one, 1)
    state = one.state_dict()
    state["obs"][1] += 1
    assert other.load_state_dict(state).startswith("environment 1 did not return to its observation")


@pytest.mark.parametrize("cut", [1, 12])
def test_a_backend_that_cannot_be_restored_starts_fresh_episodes_with_a_reset_row(cut):
    one, other = (make_env("CartPole-v1", "native", 2) for _ in range(2))
    one.reset()
    play(one, cut)
    assert "not exact" in other.load_state_dict(one.state_dict())
    step = other.step(np.zeros(2, int))
    assert not step.valid.any()
    assert not step.rewards.any()
    assert not (step.terminateds | step.truncateds).any()
    assert (np.abs(step.obs) <= 0.05).all()  # CartPole starts there
    after = other.step(np.zeros(2, int))
    assert after.valid.all()
    steps = [after, *play(other, 60)]
    assert max(episode.length for episode in other.pop_episodes()) <= len(steps)
