"""env.wrappers: applied to each environment, from a config and from Python, in every process."""

from functools import partial

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeAwareObservation, TransformReward
from omegaconf import OmegaConf

from hsw.build import build_env
from hsw.config.resolved import check
from hsw.env import as_vector_env, make_env
from hsw.errors import ConfigError, EnvError
from hsw.run.checkpoint import load_newest, save_checkpoint
from tests.env.helpers import column, make, play, random_actions
from tests.env.wrapping import Add, Bare, Counting, Odd, Saved, Times, nothing
from tests.envs import Counter, Noise
from tests.helpers import equal
from tests.runs import call, compose, run_dir, tiny

backends = pytest.mark.parametrize("backend", ["sync", "async"])
HERE = "tests.env.wrapping"


def config(*overrides):
    return compose(*tiny("ppo"), "env=gym", "env.id=tests.envs:Counter-v0", "allow=[tests]", *overrides)


def wrapped(*targets):
    return f"env.wrappers=[{','.join('{_target_: ' + target + '}' for target in targets)}]"


@backends
def test_wrappers_are_applied_in_order_and_the_first_is_the_innermost(backend):
    env = make("Counter", 2, backend, wrappers=[Add, partial(Times, factor=10)])
    assert env.reset()[0].tolist() == [10.0]
    assert column(play(env, 2), "obs") == [[20.0], [30.0]]
    env.close()


def test_spaces_are_read_after_wrapping():
    env = make_env("CartPole-v1", num_envs=2, wrappers=[partial(TimeAwareObservation, normalize_time=False)])
    assert env.observation_space.shape == (5,)
    assert env.reset().shape == (2, 5)


def test_an_evaluation_has_the_same_wrappers_or_its_own():
    both = {"wrappers": [Add], "eval_wrappers": [Times]}
    firsts = {}
    for options in ({"wrappers": [Add]}, both, {**both, "eval_wrappers": []}):
        env = make("Counter", 1, training=False, **options)
        env.reset()
        firsts[len(options), len(options.get("eval_wrappers", "-"))] = float(play(env, 1)[0].obs[0, 0])
    assert list(firsts.values()) == [2.0, 2.0, 1.0]


def test_a_config_names_targets_without_their_env():
    chosen = config(wrapped(f"{HERE}.Add, amount: 3", f"{HERE}.Times"), f"env.eval_wrappers=[{{_target_: {HERE}.Add}}]")
    check(chosen)
    env, evaluation = build_env(chosen), build_env(chosen, training=False)
    assert env.reset()[0].tolist() == [6.0]
    assert evaluation.reset()[0].tolist() == [1.0]
    assert "_partial_" not in OmegaConf.to_yaml(chosen)


def test_gymnasiums_own_need_no_allow():
    chosen = compose(*tiny("ppo"), wrapped("gymnasium.wrappers.RescaleObservation, min_obs: -1, max_obs: 1.0"))
    check(chosen)
    chosen = compose(*tiny("ppo"), wrapped("gymnasium.wrappers.TimeAwareObservation, flatten: true"))
    check(chosen)
    assert build_env(chosen).observation_space.shape == (5,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (wrapped(f"{HERE}.Add, amout: 3"), r"there is no env.wrappers.0.amout; did you mean env.wrappers.0.amount?"),
        (wrapped(f"{HERE}.Add, env: 3"), r"there is no env.wrappers.0.env"),
        (wrapped(f"{HERE}.Add, amount: x"), r"env.wrappers.0.amount=x must be a number"),
        (wrapped("os.system"), "_target_=os.system is not allowed"),
        ("env.wrappers=3", "env.wrappers=3 must be a list"),
    ],
)
def test_a_config_that_names_no_wrapper_is_refused(override, message):
    with pytest.raises(ConfigError) as caught:
        check(config(override))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (NormalizeObservation, "NormalizeObservation.*env.normalize_obs=true instead"),
        (NormalizeReward, "NormalizeReward.*env.normalize_reward=true instead"),
        (gym.wrappers.Autoreset, "hsw does already"),
        (nothing, r"env.wrappers.0 \(nothing\) returned NoneType"),
        (TransformReward, r"env.wrappers.0 \(TransformReward\): .*missing 1 required positional argument: 'func'"),
        (3, r"env.wrappers.0 \(3\) must be a wrapper"),
    ],
)
@backends
def test_wrappers_that_cannot_be_are_refused_by_name(wrapper, message, backend):
    with pytest.raises(ConfigError, match=message):
        make("Counter", 1, backend, wrappers=[wrapper])


def test_a_wrapper_that_fails_keeps_its_place():
    with pytest.raises(EnvError, match=r"could not be built: KeyError: 'colour' at .*wrapping.py:\d+"):
        make("Counter", 1, wrappers=[Bare])


@pytest.mark.parametrize("backend", ["native", "envpool"])
def test_backends_without_single_environments_refuse_wrappers(backend):
    with pytest.raises(ConfigError, match=f"env.backend={backend} has no single environments to wrap"):
        make_env("CartPole-v1", backend, 2, wrappers=[Add])


def test_an_actor_builds_the_wrappers_too():
    env = make("Counter", 1, wrappers=[partial(TransformReward, func=lambda reward: reward + 1), Add])
    remade = cloudpickle.loads(cloudpickle.dumps(env.remake))(seed=2)
    assert remade.reset()[0].tolist() == [1.0]
    assert column(play(remade, 1), "rewards") == [2.0]


@pytest.mark.parametrize("cut", [0, 3, 5, 6, 7, 11])
@backends
def test_a_wrapper_with_a_state_dict_goes_on_where_it_was(cut, backend, tmp_path):
    one, other = (make("Noise", 3, backend, wrappers=[Saved]) for _ in range(2))
    actions = random_actions(one, 20)
    one.reset()
    for action in actions[:cut]:
        one.step(action)
    save_checkpoint(tmp_path, {"env": one.state_dict()}, {})
    assert other.load_state_dict(load_newest(tmp_path)[0]["env"]) is None
    for action in actions[cut:]:
        assert equal(tuple(one.step(action))[:5], tuple(other.step(action))[:5])
    one.close()
    other.close()


def test_a_state_that_no_checkpoint_takes_is_a_fault():
    with pytest.raises(EnvError, match=r"Odd\.state_dict holds a Odd, which no checkpoint takes"):
        make("Counter", 1, wrappers=[Odd]).reset()


def test_a_wrapper_that_forgets_across_a_resume_is_said():
    one, other = (make("Noise", 1, wrappers=[Counting]) for _ in range(2))
    one.reset()
    play(one, 20)
    assert "did not return to its observation; this resume is not exact" in other.load_state_dict(one.state_dict())


def test_statistics_in_an_environment_of_ones_own_make_its_resume_inexact_and_that_is_said():
    with pytest.warns(UserWarning, match="NormalizeObservation keeps statistics"):
        env = as_vector_env(NormalizeObservation(Noise()))
    assert not env.exact
    assert as_vector_env(Noise()).exact


def test_goals_that_a_wrapper_changed_have_no_reward_function():
    env = make("Homing", 1, wrappers=[scaled_goals])
    assert env.compute_reward is None
    assert make("Homing", 1, wrappers=[gym.wrappers.RecordEpisodeStatistics]).compute_reward is not None


def scaled_goals(env):
    space = gym.spaces.Dict(
        {key: gym.spaces.Box(-1, 1, part.shape, part.dtype) for key, part in env.observation_space.items()}
    )
    return gym.wrappers.TransformObservation(env, lambda obs: {key: np.tanh(obs[key]) for key in obs}, space)


def test_a_run_with_wrappers_trains_evaluates_and_resumes(tmp_path):
    arguments = ("env=catch", wrapped("gymnasium.wrappers.FlattenObservation"), run_dir(tmp_path))
    assert call(*tiny("ppo"), *arguments, "checkpoint_interval=64").code == 0
    resumed = call(f"resume={tmp_path}", "num_train_steps=160")
    assert resumed.code == 0, resumed.err


def test_a_part_that_no_network_takes_is_named_with_what_leaves_it_out(monkeypatch):
    class Mission(Counter):
        def __init__(self):
            super().__init__()
            parts = {"image": self.observation_space, "mission": gym.spaces.Text(9)}
            self.observation_space = gym.spaces.Dict(parts)

        def observe(self):
            return {"image": super().observe(), "mission": "go"}

    monkeypatch.setitem(gym.registry, "Mission-v0", gym.envs.registration.EnvSpec("Mission-v0", Mission))
    with pytest.raises(ConfigError) as caught:
        make_env("Mission-v0", num_envs=2)
    assert "the observation's part 'mission' (Text)" in str(caught.value)
    way_out = str(caught.value).partition("leave it out with ")[2]
    chosen = compose(*tiny("ppo"), "env=gym", "env.id=Mission-v0", way_out)
    check(chosen)
    assert build_env(chosen).reset()["image"].shape == (2, 1)
