"""Small problems whose answers are known: what exploration, memory and action masks are tried on."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import hsw.env.deep_sea
import hsw.env.doors
import hsw.env.positions  # noqa: F401, registers it


def play(env: gym.Env, actions) -> tuple[float, dict, int]:
    """The return of an episode, its last info, and its length."""
    env.reset(seed=0)
    total, info, steps = 0.0, {}, 0
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        total, steps = total + reward, steps + 1
        if terminated or truncated:
            break
    return total, info, steps


@pytest.mark.parametrize("name", ["DeepSea-v0", "Doors-v0", "CartPolePositions-v0"])
def test_it_is_an_environment_as_gymnasium_has_them(name: str) -> None:
    check_env(gym.make(name).unwrapped if name != "CartPolePositions-v0" else gym.make(name), skip_render_check=True)


@pytest.mark.parametrize("randomize", [True, False])
def test_one_path_of_the_deep_sea_pays_and_all_others_cost_nothing_or_little(randomize: bool) -> None:
    env = gym.make("DeepSea-v0", size=5, randomize=randomize).unwrapped
    right = [int(env.right[n, n]) for n in range(5)]  # the diver's cells on the way to the treasure
    returns = {path: play(env, path) for path in itertools.product((0, 1), repeat=5)}
    best, info, steps = returns[tuple(right)]
    assert best == pytest.approx(0.99)
    assert (info["is_success"], steps) == (True, 5)
    others = [total for path, (total, *_) in returns.items() if path != tuple(right)]
    assert len(others) == 31
    assert max(others) <= 0.0
    assert min(others) >= -0.01


def test_the_deep_seas_map_is_the_same_in_every_copy_and_another_for_another_seed() -> None:
    one, same, other = (gym.make("DeepSea-v0", mapping_seed=seed).unwrapped.right for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert 0.3 < one.mean() < 0.7


@pytest.mark.parametrize("mask_in_obs", [False, True])
def test_the_doors_that_lead_on_pay_and_closed_ones_keep_the_room(mask_in_obs: bool) -> None:
    env = gym.make("Doors-v0", mask_in_obs=mask_in_obs).unwrapped
    total, info, steps = play(env, env.leads_on.tolist())
    assert (total, info["is_success"], steps) == (1.0, True, 6)
    obs, info = env.reset(seed=0)
    closed = int(np.argmin(info["action_mask"]))
    assert info["action_mask"].sum() == 3
    if mask_in_obs:
        assert (obs["action_mask"] == info["action_mask"]).all()
    env.step(int(env.leads_on[0]))
    room = env.room
    _, _, _, _, info = env.step(int(np.argmin(env.masks[1])))
    assert env.room == room
    assert (info["action_mask"] == env.masks[1]).all()
    (wrong, *_) = (a for a in env.masks[1].nonzero()[0] if a != env.leads_on[1])
    env.step(int(wrong))
    assert env.room == 0
    total, _, steps = play(env, itertools.repeat(closed))
    assert (steps, total) == (60, pytest.approx(-(60 - 6) / 60))


def test_a_pole_without_velocities_is_cartpoles_without_them() -> None:
    hidden, whole = gym.make("CartPolePositions-v0"), gym.make("CartPole-v1")
    (shown, _), (seen, _) = hidden.reset(seed=3), whole.reset(seed=3)
    assert hidden.observation_space.shape == (2,)
    assert hidden.spec.max_episode_steps == whole.spec.max_episode_steps == 500
    for action in (0, 1, 1, 0):
        assert shown.tolist() == seen[[0, 2]].tolist()
        (shown, reward, *ends), (seen, other, *others) = hidden.step(action)[:4], whole.step(action)[:4]
        assert (reward, ends) == (other, others)
