import random

import numpy as np
import pytest
import torch

import hsw.env.bit_flipping  # noqa: F401  (registers BitFlipping)
from hsw.agent.evaluation import evaluate
from hsw.env import Episode, make_env
from hsw.network import ActorCritic
from tests.agent.helpers import agent
from tests.env.helpers import make

CPU = torch.device("cpu")


def play(env, num_episodes, policy=None, **kwargs):
    policy = policy or ActorCritic(env.observation_space, env.action_space, hidden_sizes=(8,))
    return evaluate(policy, env, num_episodes, **{"deterministic": False, "seed": 1, "device": CPU, **kwargs})


# Seen elsewhere: N + 1 episodes were played, in a single environment.
@pytest.mark.parametrize("num_episodes", [1, 2, 5, 6])
@pytest.mark.parametrize("num_envs", [1, 2, 4])
def test_exactly_n_whole_episodes_are_played(num_episodes, num_envs):
    scores = play(make("Counter", num_envs, kwargs={"length": 4}), num_episodes)
    assert scores["returns"] == [4.0] * num_episodes
    assert scores["lengths"] == [4] * num_episodes


def test_every_environment_plays_its_share_so_that_short_episodes_do_not_crowd_out_long_ones():
    env = make("Counter", 2, kwargs={"length": 2})
    env._backend.backend.envs[1].unwrapped.length = 9
    scores = play(env, 5)
    assert sorted(scores["lengths"]) == [2, 2, 2, 9, 9]


def test_the_figures_are_those_of_the_returns():
    scores = play(make("Noise", 3), 8)
    mean = sum(scores["returns"]) / 8
    assert len(scores["returns"]) == 8
    assert scores["mean"] == pytest.approx(mean)
    assert scores["std"] == pytest.approx((sum((x - mean) ** 2 for x in scores["returns"]) / 7) ** 0.5)
    assert (scores["min"], scores["max"]) == (min(scores["returns"]), max(scores["returns"]))
    assert play(make("Counter", 1), 1)["std"] == 0.0


def test_success_is_the_share_of_episodes_that_reached_their_goal():
    def bits():
        return make_env("hsw.env.bit_flipping:BitFlipping-v0", num_envs=2, kwargs={"num_bits": 3})

    scores = play(bits(), 20)
    reached = [total > -length for total, length in zip(scores["returns"], scores["lengths"], strict=True)]
    assert 0 < scores["success"] == sum(reached) / 20 < 1
    assert "success" not in play(make("Counter", 2), 4)
    env = bits()
    env.pop_episodes = lambda: [Episode(0, 0.0, 1, True), Episode(1, 0.0, 1)]  # not every one tells
    assert "success" not in play(env, 2)


def test_random_numbers_are_left_as_they_were():
    def state():
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]

    env = make("Noise", 2)
    policy = ActorCritic(env.observation_space, env.action_space)
    before = state()
    play(env, 3, policy)
    assert state() == before


def test_the_same_seed_plays_the_same_episodes():
    env = make("Bandit", 2)
    policy = ActorCritic(env.observation_space, env.action_space)
    first = play(env, 8, policy)
    assert play(make("Bandit", 2), 8, policy) == first
    assert play(make("Bandit", 2), 8, policy, seed=2) != first
    assert play(make("Bandit", 2, seed=5), 8, policy) != first


def test_a_deterministic_evaluation_takes_the_likeliest_action():
    env = make("Bandit", 2)
    policy = ActorCritic(env.observation_space, env.action_space, hidden_sizes=())
    with torch.no_grad():
        policy.policy_head.weight.copy_(0.01 * torch.eye(2))
    assert play(env, 4, policy, deterministic=True)["returns"] == [8.0] * 4
    assert play(make("Bandit", 2), 4, policy, deterministic=False)["mean"] < 8.0


def test_an_environment_can_be_evaluated_again():
    env = make("Counter", 2, kwargs={"length": 3})
    for num_episodes in (3, 4, 3):  # ends in mid-episode, at a done
        assert play(env, num_episodes)["returns"] == [3.0] * num_episodes


def test_an_agent_evaluates_in_an_environment_object_as_in_a_fresh_one():
    returns = []
    for eval_env in (make("Counter", 2), lambda: make("Counter", 2)):
        evaluated = agent("Counter", eval_env=eval_env)
        returns += [evaluated.eval(3)["returns"] for _ in range(2)]
    assert returns == [[5.0] * 3] * 4


def test_an_evaluation_sees_observations_as_the_training_normalises_them():
    seen = []
    evaluated = agent("Counter", env={"normalize_obs": True, "kwargs": {"length": 2}})
    evaluated.train(100)
    mean = evaluated.env.obs_statistics()[""]["mean"].item()
    evaluated.eval_env = lambda: make("Counter", 1, normalize_obs=True, training=False)
    act = evaluated.policy.act
    evaluated.policy.act = lambda obs, *args: (seen.append(obs.clone()), act(obs, *args))[1]
    evaluated.eval(1)
    assert float(seen[0]) == pytest.approx((0 - mean) / 0.5, rel=1e-2)


def test_a_stop_gives_up_and_says_so():
    asked = iter([False, False, True])
    assert play(make("Endless", 1), 1, stop=lambda: next(asked)) is None


def test_an_endless_episode_is_cut_off_and_the_others_are_whole(caplog):
    caplog.set_level("WARNING", "hsw")
    scores = play(make("Endless", 2), 6, max_episode_steps=1500)
    assert scores["lengths"] == [2000, 2000]  # lengths are looked at every 1000 rows
    assert scores["returns"] == [2000.0, 2000.0]
    assert "cut off after 2000 steps" in caplog.text
    assert play(make("Counter", 2), 3, max_episode_steps=1)["lengths"] == [5, 5, 5]


def test_a_recording_sees_the_first_observation_and_every_row_that_led_to_another():
    seen = []
    play(make("Counter", 1, kwargs={"length": 3}), 1, on_step=lambda env: seen.append(float(env._obs[0, 0])))
    assert seen == [0.0, 1.0, 2.0]


def test_an_agent_logs_and_keeps_the_successes_of_its_episodes():
    def bits():
        options = {
            "env": {"kwargs": {"num_bits": 3}},
            "eval_env": lambda: make("BitFlipping", 2, kwargs={"num_bits": 3}),
        }
        return agent("BitFlipping", **options)

    logged = {}
    trained = bits()
    trained.services.log = lambda step, metrics: logged.update(metrics)
    scores = trained.train(200)
    successes = list(trained.episode_successes)
    assert logged["train/success"] == sum(successes) / len(successes)
    assert logged["eval/success"] == scores["success"]
    state = trained.state_dict()
    resumed, older = bits(), bits()
    resumed.load_state_dict(state)
    assert list(resumed.episode_successes) == successes
    older.load_state_dict({key: value for key, value in state.items() if key != "episode_successes"})
    assert not older.episode_successes


def test_an_environment_without_goals_logs_no_success():
    logged = {}
    trained = agent("Counter", eval_env=lambda: make("Counter", 2))
    trained.services.log = lambda step, metrics: logged.update(metrics)
    trained.train(100)
    assert {"train/episode_return", "eval/return_mean"} <= set(logged)
    assert not [name for name in logged if "success" in name]
