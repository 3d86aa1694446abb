"""Environments by name: one function per source, each a Hydra target."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from hsw.bounds import Range
from hsw.env.envpool import make_envpool_backend
from hsw.env.episode import EpisodeFactory
from hsw.env.goals import GoalFunctions, is_goal_space, read_goals
from hsw.env.serial import SerialVectorEnv
from hsw.env.vector import VectorEnv
from hsw.errors import ConfigError, HswError
from hsw.seeding import derive_seed
from hsw.spaces import read_space

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
        seed: Root of the episodes' seeds.
        training: False makes an evaluation environment.
        render_mode: Passed to Gymnasium environments.

    Raises:
        ConfigError: If there is no such environment, or hsw does not support its spaces.
        EnvError: If the environment cannot be built.
    """
    recipe = partial(make_env, **{name: value for name, value in locals().items() if name != "seed"})
    env_kwargs = {**(kwargs or {}), **({} if training else eval_kwargs or {})}
    action_start: Any = 0
    goals: Any = None
    try:
        if backend == "envpool":
            vector, observation_space, action_space = make_envpool_backend(id, num_envs, seed, env_kwargs)
            goals = vector.goals
        else:
            if render_mode:
                env_kwargs["render_mode"] = render_mode
            vector, goals = _make_gym_backend(id, backend, num_envs, seed, env_kwargs)
            observation_space = read_space(vector.single_observation_space)
            action_space = read_space(vector.single_action_space)
            action_start = getattr(vector.single_action_space, "start", 0)
        env = VectorEnv(
            vector,
            observation_space,
            action_space,
            exact=backend in ("sync", "async"),
            timeout=timeout,
            action_start=action_start,
            frame_stack=frame_stack,
            normalize_obs=normalize_obs,
            normalize_reward=normalize_reward,
            clip_reward=clip_reward,
            discount=discount,
            training=training,
            goals=goals,
        )
        env.remake = recipe
        return env
    except HswError:
        raise
    except (gym.error.Error, ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"env.id={id}: {error}") from error


def _make_gym_backend(
    id: str, backend: str, num_envs: int, seed: int, kwargs: dict[str, Any]
) -> tuple[Any, Callable[[], GoalFunctions | None] | None]:
    """The vector environment, and what finds the goal functions of a goal environment."""
    vector: Any
    if backend == "native":
        vector = gym.make_vec(id, num_envs, vectorization_mode="vector_entry_point", **kwargs)
        vector.reset(seed=derive_seed(seed))  # later resets go on in its random stream
        return vector, None
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = copy.copy(gym.spec(name))
    spec.order_enforce = False  # EpisodeEnv is the only caller, and checks what it gets
    make = partial(gym.make, spec, disable_env_checker=True, **kwargs)
    factories = [EpisodeFactory(make, index, seed) for index in range(num_envs)]
    if backend == "async":
        vector = AsyncVectorEnv(factories, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
    else:
        vector = SerialVectorEnv(factories)
    space = read_space(vector.single_observation_space)
    if not is_goal_space(space):
        return vector, None
    # The environments of async live in its workers: one more is built here, and only if someone asks.
    first = factories[0] if backend == "async" else lambda: vector.envs[0]
    return vector, lambda: read_goals(first().unwrapped, space.spaces["desired_goal"].shape)


def remaker(env: Any, num_envs: int) -> Callable[..., VectorEnv]:
    """What builds an environment anew, in any process: remake(seed=..., training=True).

    Args:
        env: A VectorEnv of make_env, a gymnasium.Env that gymnasium.make has built, or a function that makes one.
        num_envs: Copies of an environment that is not a vector of them already.

    Raises:
        ConfigError: If it cannot be built anew.
    """
    if isinstance(env, VectorEnv):
        if env.remake is None:
            raise ConfigError("actors cannot build this VectorEnv anew; make it with hsw.env.make_env")
        return env.remake
    make = env
    if isinstance(env, gym.Env):
        if env.spec is None:
            raise ConfigError(
                f"actors cannot build {type(env).__name__} anew, because it has no spec; make it with gymnasium.make, "
                "or give a function that makes it"
            )
        make = partial(gym.make, env.spec, disable_env_checker=True)
    elif not callable(env):
        raise ConfigError(f"env must be an environment or a function that makes one, not {type(env).__name__}")
    return partial(vector_of, make, num_envs)


def vector_of(make: Callable[[], gym.Env], num_envs: int, *, seed: int = 1, training: bool = True) -> VectorEnv:
    """A VectorEnv of N environments that a function makes, in this process."""
    vector = SerialVectorEnv([EpisodeFactory(make, index, seed) for index in range(num_envs)])
    spaces = read_space(vector.single_observation_space), read_space(vector.single_action_space)
    start = getattr(vector.single_action_space, "start", 0)
    return VectorEnv(vector, *spaces, exact=True, action_start=start, training=training)


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
