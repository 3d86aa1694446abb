"""What people call an environment, as a VectorEnv."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from hsw.env.episode import EpisodeFactory
from hsw.env.goals import GoalFunctions, is_goal_space, read_goals
from hsw.env.life import construction
from hsw.env.place import REFUSALS, config_error
from hsw.env.serial import SerialVectorEnv
from hsw.env.vector import VectorEnv
from hsw.env.workers import WorkerVectorEnv
from hsw.errors import ConfigError, HswError
from hsw.seeding import derive_seed
from hsw.spaces import read_space

Goals = Callable[[], GoalFunctions | None]


def as_vector_env(env: Any, *, seed: int = 1, training: bool = True, num_envs: int = 1, **options: Any) -> VectorEnv:
    """A VectorEnv of whatever is an environment.

    The episodes of a gymnasium.Env, of a function that makes one and of a SyncVectorEnv are seeded one by one, and a
    resumed run goes on in the midst of them; the environments of a SyncVectorEnv are stepped here, in NEXT_STEP mode
    whatever its own is. Other vector environments are stepped as they are, and start fresh episodes on resume.

    Args:
        env: A VectorEnv, which is returned as it is; a gymnasium.Env; a gymnasium.vector.VectorEnv; or a function that
            makes one of them.
        seed: Root of the episodes' seeds.
        training: False makes an evaluation environment.
        num_envs: Copies of what a function makes, if that is a gymnasium.Env.
        options: Of VectorEnv, such as timeout, frame_stack and normalize_obs.

    Raises:
        ConfigError: If it is none of these, or its spaces or its autoreset mode are not supported.
        EnvError: If it cannot be built.
    """
    try:
        with construction(options.get("timeout")):
            made = env if isinstance(env, VectorEnv | gym.Env | gym.vector.VectorEnv) else _call(env)
            if isinstance(made, VectorEnv):
                return made
            options["training"] = training
            if isinstance(made, gym.Env):
                makers = [lambda: made, *([env] * (num_envs - 1) if made is not env else [])]
                vector = _serial(makers, seed, options)
            elif type(made) is SyncVectorEnv:
                vector = _serial([partial(_same, single) for single in made.envs], seed, options)
            else:
                made.reset(seed=derive_seed(seed))  # later resets go on in its random stream
                vector = adapt(made, **options)
            if made is not env:
                vector.remake = partial(as_vector_env, env, num_envs=num_envs, **options)
        return vector
    except HswError:
        raise
    except REFUSALS as error:
        raise config_error("the environment cannot be used:", error) from error


def vector_of(
    make: Callable[[], gym.Env[Any, Any]], num_envs: int, *, seed: int = 1, training: bool = True
) -> VectorEnv:
    """A VectorEnv of N environments that a function makes, in this process."""
    return _serial([make] * num_envs, seed, {"training": training})


def remaker(env: Any, num_envs: int) -> Callable[..., VectorEnv]:
    """What builds an environment anew, in any process: remake(seed=..., training=True).

    Args:
        env: A VectorEnv of make_env, a gymnasium.Env or gymnasium.vector.VectorEnv that Gymnasium's make or make_vec
            has built, a SyncVectorEnv or AsyncVectorEnv, or a function that makes one of them.
        num_envs: Copies of an environment that is not a vector of them already.

    Raises:
        ConfigError: If it cannot be built anew.
    """
    if isinstance(env, VectorEnv):
        if env.remake is None:
            raise ConfigError("actors cannot build this VectorEnv anew; make it with hsw.env.make_env")
        return env.remake
    make: Any = env
    if isinstance(env, gym.Env | gym.vector.VectorEnv):
        if env.spec is not None:
            make = partial(gym.make_vec, env.spec)
            if isinstance(env, gym.Env):
                make = partial(gym.make, env.spec, disable_env_checker=True)
        elif type(env) is SyncVectorEnv or type(env) is AsyncVectorEnv:
            make = partial(SyncVectorEnv, env.env_fns)
        else:
            kind = "make" if isinstance(env, gym.Env) else "make_vec"
            raise ConfigError(
                f"actors cannot build {type(env).__name__} anew, because it has no spec; make it with "
                f"gymnasium.{kind}, or give a function that makes it"
            )
    elif not callable(env):
        raise ConfigError(f"env must be an environment or a function that makes one, not {type(env).__name__}")
    return partial(as_vector_env, make, num_envs=num_envs)


def adapt(vector: Any, *, exact: bool = False, goals: Goals | None = None, **options: Any) -> VectorEnv:
    """A VectorEnv around a vector environment of Gymnasium's; options are VectorEnv's."""
    actions = vector.single_action_space
    if isinstance(actions, gym.spaces.Box) and actions.shape in ((), (0,)):
        raise ConfigError(f"a Box action space of shape {actions.shape} has nothing to choose; it needs (1,) or more")
    _refuse_starts(vector.single_observation_space)
    return VectorEnv(
        vector,
        read_space(vector.single_observation_space),
        read_space(actions),
        exact=exact,
        action_start=getattr(actions, "start", 0),
        action_dtype=actions.dtype,
        goals=goals,
        **options,
    )


def _refuse_starts(space: gym.Space[Any]) -> None:
    """Categories are observed as one-hot vectors, which count from 0."""
    parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else ()
    for part in parts:
        _refuse_starts(part)
    if np.any(getattr(space, "start", 0)):
        raise ConfigError(f"the observation space {space} must count from 0; wrap the environment, to subtract")


def adapt_episodes(vector: SerialVectorEnv | WorkerVectorEnv, first: Callable[[], Any], **options: Any) -> VectorEnv:
    """A VectorEnv around EpisodeEnvs.

    Args:
        vector: Of EpisodeEnvs.
        first: Gives one that need not be stepped, if its goals are asked for.
        options: Of VectorEnv.
    """
    lost = sorted({name for names in vector.call("statistics") for name in names})
    if lost:
        warnings.warn(
            f"{', '.join(lost)} keeps statistics that evaluations and resumed runs do not share, so that a resume is "
            "not exact; normalize_obs and normalize_reward of the VectorEnv are shared",
            stacklevel=3,
        )
    space = read_space(vector.single_observation_space)

    def goals() -> GoalFunctions | None:
        env = first()
        told = getattr(env.unwrapped, "observation_space", None)
        if told is None or any(told[key] != env.observation_space[key] for key in ("achieved_goal", "desired_goal")):
            return None  # a wrapper has changed the goals, of which the environment knows nothing
        return read_goals(env.unwrapped, space.spaces["desired_goal"].shape)

    return adapt(
        vector,
        exact=not lost,
        goals=goals if is_goal_space(space) else None,
        stateful=any(vector.call("has_state")),
        **options,
    )


def _serial(makers: Sequence[Callable[[], gym.Env[Any, Any]]], seed: int, options: dict[str, Any]) -> VectorEnv:
    vector = SerialVectorEnv([EpisodeFactory(make, index, seed) for index, make in enumerate(makers)])
    return adapt_episodes(vector, lambda: vector.envs[0], **options)


def _call(make: Any) -> Any:
    """What a function makes."""
    if not callable(make):
        raise ConfigError(f"env must be an environment or a function that makes one, not {type(make).__name__}")
    made = EpisodeFactory(make, 0, 0).build()
    if not isinstance(made, VectorEnv | gym.Env | gym.vector.VectorEnv):
        raise ConfigError(f"the function that makes the environment returned {type(made).__name__}, which is none")
    return made


def _same(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env
