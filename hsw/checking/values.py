"""What a reset or a step gives, against what the spaces promise."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from hsw.errors import ConfigError
from hsw.spaces import read_space

_LARGE_INFO = 2**16  # bytes


class Fault(NamedTuple):
    """Code, message and advice, of whatever layer."""

    code: str
    message: str
    advice: str


def faults_of_space(space: Any, name: str) -> Iterator[Fault]:
    """What is wrong with a space itself."""
    if not isinstance(space, gym.Space):
        yield Fault("space", f"{name} is {type(space).__name__} and no gymnasium.Space", f"set self.{name} in __init__")
        return
    try:
        read_space(space)
    except (ValueError, ConfigError) as error:
        yield Fault("space", f"{name} {space} is not supported: {error}", "wrap the environment to give another space")
    if isinstance(space, gym.spaces.Box) and np.any(space.low > space.high):
        where = tuple(int(i) for i in np.argwhere(space.low > space.high)[0])
        told = f"{name} is from {space.low[where]} to {space.high[where]} at {list(where)}"
        yield Fault("space", told, "give bounds of which low is below high")
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            yield from faults_of_space(part, f"{name}[{key!r}]")


def faults_of_obs(space: gym.Space[Any], obs: Any, name: str = "the observation") -> Iterator[Fault]:
    """What of an observation is not as its space says."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(obs, dict) or set(obs) != set(space.spaces):
            got = sorted(map(str, obs)) if isinstance(obs, dict) else type(obs).__name__
            yield Fault("obs-keys", f"{name} has {got}, its space says {sorted(space.spaces)}", "return all of them")
            return
        for key, part in space.spaces.items():
            yield from faults_of_obs(part, obs[key], f"obs[{key!r}]")
    elif isinstance(space, gym.spaces.Tuple):
        if not isinstance(obs, tuple) or len(obs) != len(space.spaces):
            yield Fault("obs-keys", f"{name} is {type(obs).__name__}, its space says {space}", "return a tuple")
            return
        for index, part in enumerate(space.spaces):
            yield from faults_of_obs(part, obs[index], f"obs[{index}]")
    elif isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary | gym.spaces.MultiDiscrete):
        yield from _faults_of_array(space, obs, name)
    elif not space.contains(obs) and not (
        isinstance(space, gym.spaces.Discrete) and np.shape(obs) == () and space.contains(np.asarray(obs)[()])
    ):
        yield Fault("obs-bounds", f"{name} is {_shortly(obs)}, which is not in {space}", "return an element of it")


def _faults_of_array(space: Any, obs: Any, name: str) -> Iterator[Fault]:
    if not isinstance(obs, np.ndarray | np.generic):
        cast = f"return np.array(..., dtype=np.{space.dtype})"
        yield Fault("obs-dtype", f"{name} is {type(obs).__name__}, and its space promises an array", cast)
        obs = np.asarray(obs)
    if obs.shape != space.shape:
        yield Fault("obs-shape", f"{name} has shape {obs.shape}, its space says {space.shape}", "make them the same")
        return
    if obs.dtype != space.dtype:
        advice = f"return obs.astype(np.{space.dtype}), or give the space dtype={obs.dtype}"
        yield Fault("obs-dtype", f"{name} is {obs.dtype}, its space says {space.dtype}", advice)
    if obs.dtype.kind not in "biuf":
        return
    if obs.dtype.kind == "f" and not np.isfinite(obs).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(obs))[0])
        advice = "find the division or the overflow that makes it, or end the episode there"
        yield Fault("obs-not-finite", f"{name} is {obs[where]} at {list(where)}", advice)
        return
    low, high = _bounds(space)
    beyond = (obs < low) | (obs > high)
    if beyond.any():
        where = tuple(int(i) for i in np.argwhere(beyond)[0])
        of = np.broadcast_to(low, obs.shape)[where], np.broadcast_to(high, obs.shape)[where]
        told = f"{name} is {obs[where]} at {list(where)}, its space says {of[0]} to {of[1]}"
        yield Fault("obs-bounds", told, "widen the space's bounds, or clip what is returned")


def _bounds(space: Any) -> tuple[Any, Any]:
    if isinstance(space, gym.spaces.Box):
        return space.low, space.high
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return 0, 1


def faults_of_step(reward: Any, terminated: Any, truncated: Any) -> Iterator[Fault]:
    """What of a step's numbers and flags is not as it must be."""
    if isinstance(reward, bool | np.bool_) or not isinstance(reward, int | float | np.integer | np.floating):
        shape = f" of shape {reward.shape}" if isinstance(reward, np.ndarray) else ""
        told = f"the reward is {type(reward).__name__}{shape}, and must be a float"
        yield Fault("reward-type", told, "return float(reward)")
    try:
        number = float(np.asarray(reward, dtype=np.float64).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        number = 0.0
    if not abs(number) <= float(np.finfo(np.float32).max):
        told = f"the reward is {number}, and must be a number that float32 holds"
        yield Fault("reward-not-finite", told, "find the division or the overflow that makes it, or clip it")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            told = f"{name} is {_shortly(flag)} ({type(flag).__name__}), and must be a bool"
            yield Fault("flag-type", told, f"return bool({name})")


def faults_of_info(info: Any) -> Iterator[Fault]:
    """What of an info cannot go along with each step."""
    if not isinstance(info, dict):
        yield Fault("info-type", f"info is {type(info).__name__}, and must be a dict", "return {} where there is none")
        return
    try:
        size = info_size(info)
    except Exception as error:  # whatever somebody's object does when it is pickled
        bad = next((key for key, value in info.items() if not _can_be_pickled(value)), "")
        told = f"info[{bad!r}] cannot be sent from a worker process: {type(error).__name__}: {error}"
        yield Fault("info-unpicklable", told, f"leave {bad!r} out of info, or put plain numbers and arrays there")
        return
    if size > _LARGE_INFO:
        largest = max(info, key=lambda key: len(pickle.dumps(info[key])))
        told = f"info is {size:,} bytes in a step, of which {largest!r} has most; it is kept and copied in every one"
        yield Fault("info-large", told, f"leave {largest!r} out of info, or give it at an episode's end only")


def info_size(info: Any) -> int:
    """In bytes, as it goes through a pipe."""
    return len(pickle.dumps(info))


def _can_be_pickled(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # as above
        return False
    return True


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
