"""Importing this registers Atari's games (Bellemare et al. 2013, arXiv:1207.4708), preprocessed, with Gymnasium."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing

from hsw.errors import ConfigError


def build(game: str, sticky_actions: float, noop_max: int, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """One game, see hsw.env.make_ale.

    Raises:
        ConfigError: If the extra is not installed, or there is no such game.
    """
    try:
        import ale_py
        import cv2  # noqa: F401  # with which Gymnasium resizes frames
    except ImportError:
        raise ConfigError("ale-py and OpenCV are not installed; pip install 'hsw[ale]'") from None
    gym.register_envs(ale_py)
    name = "".join(word.capitalize() for word in game.split("_"))
    games = {spec.name: spec.kwargs["game"] for spec in gym.registry.values() if spec.namespace == "ALE"}
    if name not in games:
        near = get_close_matches(game, games.values(), 3, 0.0)
        raise ConfigError(f"env.game={game} is no Atari game; near to it: {', '.join(near)}")
    options: dict[str, Any] = {"frameskip": 1, "repeat_action_probability": sticky_actions}
    env = gym.make(f"ALE/{name}-v5", disable_env_checker=True, render_mode=render_mode, **options)
    return AtariPreprocessing(env, noop_max=noop_max)


if "hsw/ale-v0" not in gym.registry:
    gym.register("hsw/ale-v0", "hsw.env.ale:build")
