"""Wrappers around a single environment: applied in order, and what they keep from one episode to the next."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import wrappers as gym_wrappers

from hsw.env.place import REFUSALS, config_error
from hsw.errors import ConfigError, EnvError, HswError

Wrapper = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]

# Statistics of single environments, which neither the other environments, nor an evaluation, nor a resume shares.
_STATISTICS = {gym_wrappers.NormalizeObservation: "normalize_obs", gym_wrappers.NormalizeReward: "normalize_reward"}

_ARRAY = "numpy"


class Wrapped:
    """A function that makes an environment and wraps it; it reaches other processes as its parts do.

    Args:
        make: Makes the environment.
        wrappers: Each takes an environment and returns one; the first is the innermost.

    Raises:
        ConfigError: From a call, if a wrapper is none, or would undo what the vector of environments does.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], wrappers: Sequence[Wrapper]) -> None:
        self._make, self._wrappers = make, wrappers

    def __call__(self) -> gym.Env[Any, Any]:
        env = self._make()
        for index, wrapper in enumerate(self._wrappers):
            place = f"env.wrappers.{index} ({_name(wrapper)})"
            if not callable(wrapper):
                raise ConfigError(f"{place} must be a wrapper: what takes an environment and returns one")
            try:
                wrapped = wrapper(env)
            except HswError:
                raise
            except REFUSALS as error:  # not with these arguments, or not around this environment
                raise config_error(f"{place}:", error) from error
            if not isinstance(wrapped, gym.Env):
                raise ConfigError(f"{place} returned {type(wrapped).__name__} and must return a gymnasium.Env")
            for kind, option in _STATISTICS.items():
                if isinstance(wrapped, kind):
                    raise ConfigError(
                        f"{place} keeps statistics that evaluations and resumed runs do not share; take "
                        f"env.{option}=true instead, or network.normalize_obs=true with a replay"
                    )
            if isinstance(wrapped, gym_wrappers.Autoreset):
                raise ConfigError(f"{place} resets environments, which hsw does already; leave it out")
            env = wrapped
        return env


def chosen(
    wrappers: Sequence[Wrapper] | None, eval_wrappers: Sequence[Wrapper] | None, training: bool
) -> list[Wrapper]:
    """The wrappers of a training or an evaluation environment; eval_wrappers=None takes the training's."""
    return list((wrappers if training or eval_wrappers is None else eval_wrappers) or ())


def layers(env: gym.Env[Any, Any]) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    """The wrappers around an environment, the outermost first."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def with_state(env: gym.Env[Any, Any]) -> list[Any]:
    """The wrappers whose state goes into checkpoints: those with a state_dict and a load_state_dict."""
    return [
        layer
        for layer in layers(env)
        if all(callable(getattr(layer, name, None)) for name in ("state_dict", "load_state_dict"))
    ]


def with_statistics(env: gym.Env[Any, Any]) -> list[str]:
    """The names of wrappers whose statistics are lost when the process ends."""
    return [type(layer).__name__ for layer in layers(env) if isinstance(layer, tuple(_STATISTICS))]


def packed(state: Any, owner: str) -> Any:
    """A wrapper's state as a checkpoint takes it: arrays as marked tensors.

    Raises:
        EnvError: If something else than arrays, tensors, numbers, words, lists and dicts is in it.
    """
    if isinstance(state, dict):
        return {str(key): packed(value, owner) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [packed(value, owner) for value in state]
    if isinstance(state, np.ndarray):
        return {_ARRAY: torch.from_numpy(state.copy())}
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, np.generic):
        return state.item()
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise EnvError(f"{owner}.state_dict holds a {type(state).__name__}, which no checkpoint takes")


def unpacked(state: Any) -> Any:
    """What packed was given."""
    if isinstance(state, dict):
        if set(state) == {_ARRAY}:
            return state[_ARRAY].numpy().copy()
        return {key: unpacked(value) for key, value in state.items()}
    return [unpacked(value) for value in state] if isinstance(state, list) else state


def _name(wrapper: Any) -> str:
    while isinstance(wrapper, functools.partial):
        wrapper = wrapper.func
    return str(getattr(wrapper, "__name__", None) or wrapper)
