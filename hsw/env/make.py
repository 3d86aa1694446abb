"""Environments by name: one function per source, each a Hydra target."""

from __future__ import annotations

import copy
import importlib
import os
import resource
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium as gym

from hsw.bounds import Range
from hsw.env.adapt import adapt, adapt_episodes
from hsw.env.envpool import make_envpool_backend
from hsw.env.episode import EpisodeFactory
from hsw.env.life import construction
from hsw.env.masks import MaskSource
from hsw.env.place import REFUSALS, config_error, env_error
from hsw.env.serial import SerialVectorEnv
from hsw.env.trust import check_entry_point, check_import, check_kwargs
from hsw.env.vector import VectorEnv
from hsw.env.workers import WorkerVectorEnv
from hsw.env.wrappers import Wrapped, Wrapper, chosen
from hsw.errors import ConfigError, HswError
from hsw.seeding import derive_seed

Backend = Literal["sync", "async", "native", "envpool"]


def make_env(
    id: str,
    backend: Backend = "sync",
    num_envs: Annotated[int, Range(1)] = 8,
    kwargs: dict[str, Any] | None = None,
    eval_kwargs: dict[str, Any] | None = None,
    frame_stack: Annotated[int, Range(1)] = 1,
    normalize_obs: bool = False,
    normalize_reward: bool = False,
    clip_reward: Annotated[float | None, Range(0, open_low=True)] = None,
    discount: Annotated[float, Range(0, 1)] = 0.99,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    wrappers: Sequence[Wrapper] | None = None,
    eval_wrappers: Sequence[Wrapper] | None = None,
    action_mask: MaskSource = "none",
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """Build the vector environment of a run.

    Args:
        id: A Gymnasium id, "my_pkg.module:MyEnv-v0" for one that my_pkg.module registers, or an EnvPool task.
        backend: "sync" steps the envs one after another in this process, "async" in one worker process each; both
            resume exactly. "native" uses the env's own vectorised implementation and "envpool" EnvPool's; both start
            fresh episodes on resume.
        num_envs: N.
        kwargs: Passed to the environment.
        eval_kwargs: What an evaluation changes in kwargs (test levels, whole games).
        frame_stack, normalize_obs, normalize_reward, clip_reward, discount, timeout: See VectorEnv.
        wrappers: Applied to each single environment in this order, innermost first: each takes an environment and
            returns one. In a config, a list of targets without their env. Only for sync and async.
        eval_wrappers: The wrappers of an evaluation; None takes the same.
        action_mask: Which actions are allowed is told by an observation's part action_mask ("auto", if there is one),
            by info["action_mask"] ("info"), or by nobody ("none", what runs mean that name none).
        seed: Root of the episodes' seeds.
        training: False makes an evaluation environment.
        render_mode: Passed to Gymnasium environments.

    Raises:
        ConfigError: If there is no such environment, or hsw does not support its spaces.
        EnvError: If the environment cannot be built.
    """
    recipe = partial(make_env, **{name: value for name, value in locals().items() if name != "seed"})
    check_kwargs(id, "env.id")
    check_kwargs(kwargs)
    check_kwargs(eval_kwargs, "env.eval_kwargs")
    env_kwargs = {**(kwargs or {}), **({} if training else eval_kwargs or {})}
    layers = chosen(wrappers, eval_wrappers, training)
    if layers and backend in ("native", "envpool"):
        raise ConfigError(
            f"env.backend={backend} has no single environments to wrap; leave env.wrappers out, or set env.backend to "
            "sync or async"
        )
    options: dict[str, Any] = {
        "timeout": timeout,
        "frame_stack": frame_stack,
        "normalize_obs": normalize_obs,
        "normalize_reward": normalize_reward,
        "clip_reward": clip_reward,
        "discount": discount,
        "training": training,
        "action_mask": action_mask,
    }
    try:
        if backend == "envpool":
            with construction(timeout):
                pool, *spaces = make_envpool_backend(id, num_envs, seed, env_kwargs)
                env = VectorEnv(pool, *spaces, goals=pool.goals, **options)
        else:
            if render_mode:
                env_kwargs["render_mode"] = render_mode
            with construction(timeout):
                env = _make_gym(id, backend, num_envs, seed, env_kwargs, layers, **options)
        env.remake = recipe
        return env
    except HswError:
        raise
    except REFUSALS as error:
        raise config_error(f"env.id={id}:", error) from error


def _make_gym(
    id: str, backend: str, num_envs: int, seed: int, kwargs: dict[str, Any], wrappers: Sequence[Wrapper], **options: Any
) -> VectorEnv:
    if backend == "native":
        vector = gym.make_vec(id, num_envs, vectorization_mode="vector_entry_point", **kwargs)
        vector.reset(seed=derive_seed(seed))  # later resets go on in its random stream
        return adapt(vector, **options)
    module, _, name = id.rpartition(":")
    if module:
        _import(module)
    spec = copy.copy(gym.spec(name))
    check_entry_point(spec.entry_point)
    spec.order_enforce = False  # EpisodeEnv is the only caller, and checks what it gets
    make: Callable[[], gym.Env[Any, Any]] = partial(gym.make, spec, disable_env_checker=True, **kwargs)
    if wrappers:
        make = Wrapped(make, wrappers)
    factories = [EpisodeFactory(make, index, seed) for index in range(num_envs)]
    if backend == "async":
        _check_files(num_envs)
        # Its environments live in its workers: one more is built here, and only if someone asks.
        return adapt_episodes(WorkerVectorEnv(factories), factories[0], **options)
    serial = SerialVectorEnv(factories)
    return adapt_episodes(serial, lambda: serial.envs[0], **options)


def _check_files(num_envs: int) -> None:
    """Refuse more workers than the limit of open files lets start."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
    needed = open_now + 4 * num_envs + 24
    if limit != resource.RLIM_INFINITY and needed > limit:
        raise ConfigError(
            f"env.num_envs={num_envs} with env.backend=async needs about {needed} open files and {limit} are allowed; "
            "raise `ulimit -n`, lower env.num_envs, or set env.backend=sync"
        )


def _import(module: str) -> None:
    """Import the module that registers an environment."""
    check_import(module)
    try:
        importlib.import_module(module)
    except REFUSALS:
        raise
    except Exception as error:
        raise env_error(f"{module} could not be imported:", error) from error


PROCGEN_GAMES = [
    "bigfish",
    "bossfight",
    "caveflyer",
    "chaser",
    "climber",
    "coinrun",
    "dodgeball",
    "fruitbot",
    "heist",
    "jumper",
    "leaper",
    "maze",
    "miner",
    "ninja",
    "plunder",
    "starpilot",
]


def make_procgen(
    game: str,
    distribution_mode: Literal["easy", "hard"] = "easy",
    num_levels: Annotated[int, Range(0)] = 200,
    start_level: Annotated[int, Range(0)] = 0,
    num_envs: Annotated[int, Range(1)] = 64,
    normalize_reward: bool = True,
    clip_reward: Annotated[float | None, Range(0, open_low=True)] = 10.0,
    discount: Annotated[float, Range(0, 1)] = 0.999,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """Procgen (Cobbe et al. 2020, arXiv:1912.01588) through EnvPool: 64x64 pixels, 15 actions.

    Args:
        game: One of the 16 games.
        distribution_mode: Difficulty.
        num_levels, start_level: Training levels; an evaluation plays all of them (num_levels=0), as the papers do.
        num_envs, normalize_reward, clip_reward, discount, timeout, seed, training, render_mode: See make_env.
    """
    if game not in PROCGEN_GAMES:
        raise ConfigError(f"env.game={game} is not a Procgen game; the games are {', '.join(PROCGEN_GAMES)}")
    return make_env(
        f"{game.capitalize()}{distribution_mode.capitalize()}-v0",
        "envpool",
        num_envs,
        kwargs={"num_levels": num_levels, "start_level": start_level},
        eval_kwargs={"num_levels": 0, "start_level": 0},
        normalize_reward=normalize_reward,
        clip_reward=clip_reward,
        discount=discount,
        timeout=timeout,
        seed=seed,
        training=training,
        render_mode=render_mode,
    )


def make_atari(
    game: str,
    num_envs: Annotated[int, Range(1)] = 8,
    frame_stack: Annotated[int, Range(1)] = 4,
    clip_reward: bool = True,
    episodic_life: bool = True,
    timeout: Annotated[float | None, Range(0, open_low=True)] = 60.0,
    *,
    seed: int = 1,
    training: bool = True,
    render_mode: str | None = None,
) -> VectorEnv:
    """Atari through EnvPool with DQN's preprocessing: 84x84 grey, frame skip 4; episodes are whole games in evaluation.

    Args:
        game: In snake case, such as pong or space_invaders.
        clip_reward: Train on the sign of the reward.
        episodic_life: A lost life terminates, in training.
        num_envs, frame_stack, timeout, seed, training, render_mode: See make_env.
    """
    return make_env(
        "".join(word.capitalize() for word in game.split("_")) + "-v5",
        "envpool",
        num_envs,
        kwargs={"stack_num": frame_stack, "reward_clip": clip_reward, "episodic_life": episodic_life},
        eval_kwargs={"reward_clip": False, "episodic_life": False},
        timeout=timeout,
        seed=seed,
        training=training,
        render_mode=render_mode,
    )
