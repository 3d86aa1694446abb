"""Families of environments by name, and parts of observations that no network takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from hsw.env import as_vector_env, make_minatar, make_minigrid
from hsw.env.families import MINATAR_GAMES
from hsw.env.parts import Sentences
from hsw.errors import ConfigError
from tests.runs import TINY, call, compose, run_dir


class Told(gym.Env):
    """Observes a tuple with a tuple and a sentence's dict in it."""

    def __init__(self) -> None:
        box = gym.spaces.Box(-9, 9, (2,), np.float32)
        self.observation_space = gym.spaces.Tuple(
            [gym.spaces.Dict(a=box, b=gym.spaces.Tuple([box])), gym.spaces.Discrete(3)]
        )
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return ({"a": np.zeros(2, np.float32), "b": (np.ones(2, np.float32),)}, 2), {}

    def step(self, action: Any) -> Any:
        return self.reset()[0], 1.0, False, False, {}


def test_tuples_at_any_depth_are_dicts() -> None:
    env = as_vector_env(Told, num_envs=2)
    assert set(env.observation_space.spaces) == {"part_0", "part_1"}
    assert set(env.observation_space.spaces["part_0"].spaces["b"].spaces) == {"part_0"}
    for obs in (env.reset(), env.step(np.zeros(2, int)).obs):
        assert obs["part_1"].tolist() == [2, 2]
        assert obs["part_0"]["b"]["part_0"].tolist() == [[1, 1], [1, 1]]


class Says(gym.Env):
    observation_space = gym.spaces.Dict(x=gym.spaces.Discrete(2), text=gym.spaces.Text(99))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, *texts: str) -> None:
        self.texts = iter(texts)

    def reset(self, **kwargs: Any) -> Any:
        return {"x": 0, "text": next(self.texts)}, {}


def test_sentences_are_left_out_or_shown_as_the_numbers_of_their_words() -> None:
    assert set(Sentences(Says("go")).reset()[0]) == {"x"}
    env = Sentences(Says("go to the ball", "Go to", "pick up the ball, then go to it"), words=4)
    (one, _), (two, _), (three, _) = (env.reset() for _ in range(3))
    assert all(obs in env.observation_space for obs in (one, two, three))
    assert two["text"].tolist() == [*one["text"][:2], 0, 0]  # case does not matter
    assert (one["text"] > 0).all()
    assert three["text"][2:].tolist() == one["text"][2:].tolist()  # the ball
    assert three["text"][0] != one["text"][0]


@pytest.mark.parametrize("words", [0, 5])
def test_minigrid_is_seen_without_its_mission_or_with_its_words(words: int) -> None:
    pytest.importorskip("minigrid")
    env = make_minigrid("MiniGrid-DoorKey-6x6-v0", words, num_envs=2)
    assert set(env.observation_space.spaces) == {"direction", "image", *["mission"] * bool(words)}
    obs = env.step(np.zeros(2, int)).obs if env.reset() else None
    assert obs["image"].shape == (2, 7, 7, 3)
    if words:
        assert (obs["mission"] > 0).all()  # use the key to open
    with pytest.raises(ConfigError, match="MiniGrid-Nowhere"):
        make_minigrid("MiniGrid-Nowhere-v0")


def test_a_minigrid_run_says_what_it_sees(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    small = [one for one in TINY if one != "quiet=true"]
    done = call(*small, "env=minigrid", "env.mission_words=2", "network.hidden_sizes=[8]", run_dir(tmp_path))
    assert done.code == 0, done.err
    assert "mission" in done.out + done.err


@pytest.mark.parametrize("game", MINATAR_GAMES)
def test_every_game_of_minatar_plays(game: str) -> None:
    pytest.importorskip("minatar")
    env = make_minatar(game, num_envs=2)
    assert env.reset().shape[1:3] == (10, 10)
    assert 3 <= env.action_space.nvec[0] <= 6
    env.step(np.ones(2, int))
    assert compose("env=minatar", f"env.game={game}").env.game == game


def test_a_game_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="asterix, breakout, freeway, seaquest, space_invaders"):
        make_minatar("pong")
