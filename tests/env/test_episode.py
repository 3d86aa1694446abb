"""Environments that break their contract, hang or die: one sentence that names the environment, and no process left."""

import multiprocessing
import os
import re
import signal
import threading
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest

from hsw.env.episode import EpisodeEnv
from hsw.env.place import config_error
from hsw.errors import EnvError
from hsw.seeding import derive_seed
from tests.env.helpers import make, play
from tests.envs import Counter, Noise

# Gymnasium prints the tracebacks of workers as warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
backends = pytest.mark.parametrize("backend", ["sync", "async"])

FAULTS = {
    "NaNObs": "the observation has a NaN",
    "NaNReward": "the reward is nan",
    "WrongShape": r"has shape \(2,\), its space says \(1,\)",
    "WrongDtype": "is int64, its space says float32",
    "OldApi": "old 4-value API",
    "StepRaises": "step raised RuntimeError: the simulator fell over",
    "SysExit": "step raised SystemExit",
}


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) == before


def fails_in(env, steps):
    """Play until the fault, which must come in that step."""
    try:
        env.reset()
        play(env, steps - 1)
        begin = time.perf_counter()
        with pytest.raises(EnvError) as caught:
            env.step(np.zeros(env.num_envs, int))
        assert time.perf_counter() - begin < 5
        return str(caught.value)
    finally:
        env.close()


@backends
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_step_names_the_environment_and_what_is_wrong(name, backend):
    message = fails_in(make(name, 2, backend, kwargs={"after": 2, "length": 99}), 3)
    assert re.match(f"environment [01]: .*{FAULTS[name]}", message)


def test_the_environment_that_fails_is_the_one_named():
    vector = make("NaNObs", 3, kwargs={"after": 2, "length": 99})
    for env in (0, 2):
        vector._backend.backend.envs[env].unwrapped.after = 99
    assert fails_in(vector, 3).startswith("environment 1: the observation has a NaN")


@backends
@pytest.mark.parametrize("after", [0, 1])
def test_a_reset_that_raises_is_a_fault_at_the_start_and_later(backend, after):
    env = make("ResetRaises", 2, backend, kwargs={"after": after, "length": 1})
    with pytest.raises(EnvError, match=r"environment [01]: reset raised RuntimeError: the simulator did not come up"):
        env.reset()
        play(env, 2)
    env.close()


@backends
def test_an_environment_that_cannot_be_built_is_a_fault(backend):
    with pytest.raises(EnvError, match="environment 0 could not be built: RuntimeError: no display"):
        make("BuildFails", 2, backend)


class Curtains(Counter):
    render_mode = "rgb_array"

    def render(self):
        raise KeyError("no display")

    def close(self):
        raise KeyError("no display")


def test_what_render_and_close_raise_is_told_with_its_place():
    env = EpisodeEnv(Curtains(), index=1, seed=1)
    with pytest.raises(
        EnvError, match=r"^environment 1: render raised KeyError: 'no display' at .*test_episode.py:\d+$"
    ):
        env.render()
    with pytest.warns(
        UserWarning, match=r"^environment 1: close raised KeyError: 'no display' at .*test_episode.py:\d+$"
    ):
        env.close()


@backends
def test_an_environment_that_hangs_is_a_fault_after_the_timeout(backend):
    env = make("Hang", 2, backend, kwargs={"after": 2, "length": 99}, timeout=0.3)
    assert "within 0.3 s" in fails_in(env, 3)


@pytest.mark.parametrize(("name", "delay"), [("Counter", 0.0), ("Hang", 0.2)], ids=["between steps", "in a step"])
def test_a_worker_that_dies_is_a_fault_that_names_it(name, delay):
    env = make(name, 3, "async", kwargs={"length": 99}, timeout=0.6)
    env.reset()
    killer = threading.Timer(delay, os.kill, (env._backend.backend.processes[1].pid, signal.SIGKILL))
    killer.start()
    if not delay:
        killer.join()
    with pytest.raises(EnvError, match="environment 1: its worker process died with exit code -9"):
        env.step(np.zeros(3, int))
    env.close()


def test_float64_is_cast_to_the_spaces_float32_with_one_warning():
    env = make("Float64", 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = env.reset()
        steps = play(env, 10)
    assert first.dtype == steps[-1].obs.dtype == np.float32
    assert len([w for w in caught if "is float64 and is cast" in str(w.message)]) == 1


# Seen elsewhere: every episode was reset with the same seed.
def test_an_episodes_seed_is_a_function_of_run_env_and_episode():
    def firsts(seed, index, count=4):
        env = EpisodeEnv(Noise(), index, seed)
        return [env.reset()[0].tolist() for _ in range(count)]

    expected = [Noise().reset(seed=derive_seed(5, 2, episode))[0].tolist() for episode in range(4)]
    assert firsts(5, 2) == expected
    different = {tuple(obs) for seed in (1, 2) for index in (0, 1) for obs in firsts(seed, index)}
    assert len(different) == 16


@pytest.mark.parametrize("done", [False, True])
def test_a_replay_rebuilds_an_episode_and_continues_it(done):
    generator = np.random.default_rng(0)
    env = EpisodeEnv(Noise(), 1, 5)
    env.reset()
    env.reset()
    actions: list = []
    finished = False
    while not finished and (done or len(actions) < 2):
        actions.append(int(generator.integers(3)))
        obs, _, terminated, truncated, _ = env.step(actions[-1])
        finished = terminated or truncated
    other = EpisodeEnv(Noise(), 1, 5)
    replayed, _ = other.reset(options={"replay": [None, (1, actions)]})
    assert np.array_equal(replayed, obs)
    if done:  # the vector env asks for a step, and gets the reset
        obs, reward, *flags, _ = other.step(0)
        assert np.array_equal(obs, env.reset()[0])
        assert (reward, *flags) == (0.0, False, False)
    assert np.array_equal(other.step(1)[0], env.step(1)[0])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros(1, np.float32), r"reset must return \(obs, info\), got ndarray"),
        (([1.0], {}), None),
        (({"x": 1}, {}), "the observation"),
    ],
    ids=["old_api", "list", "dict"],
)
def test_what_reset_returns_is_checked(result, message):
    class Odd(Counter):
        def reset(self, **kwargs):
            return result

    env = EpisodeEnv(Odd(), 0, 1)
    if message is None:
        assert env.reset()[0].dtype == np.float32
        return
    with pytest.raises(EnvError, match=f"environment 0: {message}"):
        env.reset()


@pytest.mark.parametrize(
    ("reward", "fits"), [(np.float32(2), True), (np.array(2.0), True), (None, False), ("x", False)]
)
def test_a_reward_must_be_a_number(reward, fits):
    class Paid(Counter):
        def step(self, action):
            return (self.observe(), reward, False, False, {})

    env = EpisodeEnv(Paid(), 0, 1)
    env.reset()
    if fits:
        assert env.step(0)[1] == 2.0
    else:
        with pytest.raises(EnvError, match="environment 0: the reward must be a number"):
            env.step(0)


def test_a_missing_library_of_gymnasiums_is_told_with_the_extra_of_hsws() -> None:
    error = gym.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')
    assert str(config_error("env.id=x:", error)) == 'env.id=x: MuJoCo is not installed, run `pip install "hsw[mujoco]"`'
