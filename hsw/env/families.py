"""Families of environments, one function each: an environment by its name within the family."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from hsw.bounds import Range
from hsw.env.make import make_env
from hsw.env.parts import Sentences
from hsw.env.vector import VectorEnv
from hsw.errors import ConfigError

MINATAR_GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
Steps = Literal["sync", "async"]


def make_minigrid(
    id: str = "MiniGrid-Empty-8x8-v0",
    mission_words: Annotated[int, Range(0)] = 0,
    backend: Steps = "sync",
    num_envs: Annotated[int, Range(1)] = 8,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    kwargs: dict[str, Any] | None = None,
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """MiniGrid as it ships (Chevalier-Boisvert et al. 2023, arXiv:2306.13831): a view of 7x7 cells, and a direction.

    Args:
        id: One of its environments, such as MiniGrid-DoorKey-6x6-v0.
        mission_words: Show so many words of the mission as numbers (see hsw.env.parts.Sentences); 0 leaves it out.
        backend, num_envs, timeout, kwargs, seed, training, render_mode: See make_env.
    """
    wrappers = [partial(Sentences, words=mission_words)]
    options: dict[str, Any] = {"kwargs": kwargs, "timeout": timeout, "wrappers": wrappers, "render_mode": render_mode}
    return make_env(f"hsw.env.minigrid:{id}", backend, num_envs, seed=seed, training=training, **options)


def make_minatar(
    game: str,
    sticky_actions: Annotated[float, Range(0, 1)] = 0.1,
    backend: Steps = "sync",
    num_envs: Annotated[int, Range(1)] = 64,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """MinAtar (Young & Tian 2019, arXiv:1903.03176): 10x10 boards, with the actions that the game needs.

    Args:
        game: asterix, breakout, freeway, seaquest or space_invaders.
        sticky_actions: Probability with which the last action is repeated.
        backend, num_envs, timeout, seed, training, render_mode: See make_env.
    """
    if game not in MINATAR_GAMES:
        raise ConfigError(f"env.game={game} is not a MinAtar game; the games are {', '.join(MINATAR_GAMES)}")
    name = "".join(word.capitalize() for word in game.split("_"))
    options: dict[str, Any] = {"kwargs": {"sticky_action_prob": sticky_actions}, "render_mode": render_mode}
    module = "hsw.env.minatar"
    return make_env(
        f"{module}:MinAtar/{name}-v1", backend, num_envs, timeout=timeout, seed=seed, training=training, **options
    )
