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


def make_dm_control(
    domain: str = "cheetah",
    task: str = "run",
    pixels: bool = False,
    pixel_size: Annotated[int, Range(1)] = 84,
    camera: Annotated[int, Range(0)] = 0,
    frame_stack: Annotated[int, Range(1)] = 1,
    backend: Steps = "sync",
    num_envs: Annotated[int, Range(1)] = 1,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """The DeepMind Control Suite (Tassa et al. 2018, arXiv:1801.00690) by shimmy; most episodes are 1,000 steps.

    Args:
        domain, task: Of the suite, such as walker and walk.
        pixels: Observe images of pixel_size x pixel_size x 3 bytes in place of the state, a vector of float32.
        pixel_size: Of an image's side.
        camera: Which of the domain's cameras sees it.
        frame_stack, backend, num_envs, timeout, seed, training, render_mode: See make_env.
    """
    kwargs = {"domain": domain, "task": task, "pixels": pixels, "pixel_size": pixel_size, "camera": camera}
    return make_env(
        "hsw.env.dm_control:hsw/dm_control-v0",
        backend,
        num_envs,
        kwargs=kwargs,
        frame_stack=frame_stack,
        timeout=timeout,
        seed=seed,
        training=training,
        render_mode=render_mode,
    )


def make_ale(
    game: str,
    sticky_actions: Annotated[float, Range(0, 1)] = 0.25,
    noop_max: Annotated[int, Range(0)] = 30,
    frame_stack: Annotated[int, Range(1)] = 4,
    clip_reward: Annotated[float | None, Range(0, open_low=True)] = 1.0,
    backend: Steps = "sync",
    num_envs: Annotated[int, Range(1)] = 8,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """Atari through Gymnasium, as Machado et al. 2018 (arXiv:1709.06009) evaluate it; resumes exactly.

    Gymnasium's AtariPreprocessing: 84x84 grey, frame skip 4 with the larger of the last two frames. An episode is a
    whole game, in training too.

    Args:
        game: In snake case, such as pong or space_invaders.
        sticky_actions: Probability with which the last action is repeated, in each frame.
        noop_max: Up to so many actions that do nothing begin a game.
        clip_reward: Train on rewards clipped to plus and minus this; None does not clip.
        frame_stack, backend, num_envs, timeout, seed, training, render_mode: See make_env.
    """
    return make_env(
        "hsw.env.ale:hsw/ale-v0",
        backend,
        num_envs,
        kwargs={"game": game, "sticky_actions": sticky_actions, "noop_max": noop_max},
        frame_stack=frame_stack,
        clip_reward=clip_reward,
        timeout=timeout,
        seed=seed,
        training=training,
        render_mode=render_mode,
    )
