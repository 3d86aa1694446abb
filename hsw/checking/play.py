"""One environment, played as hsw plays it: guarded, with random actions that can be taken again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from hsw.checking.findings import Finding
from hsw.env import VectorEnv
from hsw.env.life import Life, is_ours
from hsw.env.place import env_error, place_of
from hsw.env.serial import SerialVectorEnv
from hsw.env.wrappers import layers
from hsw.errors import ConfigError, EnvError, HswError
from hsw.spaces import MASK

_LIBRARIES = ("gymnasium", "hsw")


@dataclass(frozen=True)
class Row:
    """What one step gave, copied."""

    obs: Any
    reward: Any
    terminated: Any
    truncated: Any

    @classmethod
    def of(cls, told: tuple[Any, Any, Any, Any, Any]) -> Row:
        return cls(copied(told[0]), copied(told[1]), told[2], told[3])

    @property
    def over(self) -> bool:
        return bool(self.terminated) or bool(self.truncated)


@dataclass
class Episode:
    """An episode, or its beginning."""

    first: Any
    actions: list[Any] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class Played:
    """A single environment, fresh of its making.

    Args:
        make: Makes a VectorEnv of one environment, in this process.

    Attributes:
        env: With all its wrappers.
        layers: From the environment itself outwards.

    Raises:
        EnvError, ConfigError: If it cannot be built.
    """

    def __init__(self, make: Callable[[], VectorEnv]) -> None:
        self.vector = make()
        if not isinstance(self.vector.backend, SerialVectorEnv):
            raise ConfigError("there is no single environment in it")
        self.env: gym.Env[Any, Any] = self.vector.backend.envs[0].env
        self.layers: list[gym.Env[Any, Any]] = [self.env.unwrapped, *reversed(list(layers(self.env)))]
        self._life = Life(10.0)
        self._life.open()

    def call(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call into the environment's code.

        Raises:
            EnvError: If it raises, hangs, or leaves something changed behind.
        """
        try:
            with self._life.during(what, look=what != "step"):
                return function(*args)
        except HswError:
            raise
        except BaseException as error:
            if is_ours(error) or not isinstance(error, Exception):
                raise
            raise env_error(f"{what} raised", error) from error

    def reset(self, seed: int) -> tuple[Any, Any]:
        """The observation as it came, and info."""
        result = self.call("reset", partial(self.env.reset, seed=seed))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise EnvError(f"reset must return (obs, info), got {type(result).__name__} at {self.place('reset')}")
        return result[0], result[1]

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        """What the step returned, as it came."""
        result = self.call("step", self.env.step, action)
        if not (isinstance(result, tuple) and len(result) == 5):
            got = len(result) if isinstance(result, tuple) else type(result).__name__
            form = "(obs, reward, terminated, truncated, info)"
            raise EnvError(f"step must return {form}, got {got} values at {self.place('step')}")
        return result

    def close(self) -> None:
        self._life.close()
        self.vector.abandon()

    def play(
        self, seed: int, actions: Sequence[Any] | None = None, steps: int = 200, draw: int = 0, touch: Any = None
    ) -> Episode:
        """An episode from a seed, as far as it goes.

        Args:
            seed: Of its reset.
            actions: To take again; None draws some.
            steps: At most.
            draw: Of the actions' generator.
            touch: Called after each reset and step with the observation, once it is copied.
        """
        rng = np.random.default_rng(draw)
        obs, info = self.reset(seed)
        episode = Episode(copied(obs))
        if touch:
            touch(obs)
        for number in range(steps if actions is None else len(actions)):
            action = draw_action(self.env.action_space, rng, mask_of(obs, info)) if actions is None else actions[number]
            obs, reward, terminated, truncated, info = self.step(copied(action))
            episode.actions.append(action)
            episode.rows.append(Row.of((obs, reward, terminated, truncated, info)))
            if touch:
                touch(obs)
            if episode.rows[-1].over:
                break
        return episode

    def drawn_actions(self, number: int) -> Iterator[Any]:
        """Actions for the running episode, whose masks this does not see."""
        rng = np.random.default_rng(0)
        for _ in range(number):
            yield draw_action(self.env.action_space, rng, None)

    def place(self, method: str) -> str:
        """Where the environment's own method is written, or of a user's wrapper that overrides it."""
        own = [layer for layer in self.layers[1:] if not type(layer).__module__.startswith(_LIBRARIES)]
        for layer in (self.layers[0], *own):
            if method in vars(type(layer)) or layer is self.layers[0]:
                return method_place(type(layer), method)
        return ""

    def fault(self, code: str, message: str, advice: str, method: str = "step", note: bool = False) -> Finding:
        """A finding about a method of the environment's."""
        return Finding(code, message, advice, self.place(method), note=note)


def method_place(owner: type, method: str) -> str:
    """Where a class's method is written, with their names; where the class is, if it inherits the method."""
    function = vars(owner).get(method)
    place = place_of(function) if function is not None else ""
    return f"{place or place_of(owner)} {owner.__name__}.{method}".strip()


def draw_action(space: gym.Space[Any], rng: np.random.Generator, mask: Any) -> Any:
    """An action of a space, one that its mask allows; in every tenth, numbers are at their bounds."""
    if isinstance(space, gym.spaces.Discrete):
        allowed = np.flatnonzero(mask) if mask is not None and np.any(mask) else np.arange(space.n)
        return np.int64(space.start + rng.choice(allowed))
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        flat = np.ones(int(space.nvec.sum()), bool) if mask is None else np.ravel(mask).astype(bool)
        parts = np.split(flat, np.cumsum(space.nvec)[:-1])
        chosen = [rng.choice(np.flatnonzero(part)) if part.any() else 0 for part in parts]
        return (np.array(chosen) + space.start).astype(space.dtype)
    if isinstance(space, gym.spaces.Box) and space.dtype is not None and np.issubdtype(space.dtype, np.floating):
        low, high = np.nan_to_num(space.low, neginf=-10.0), np.nan_to_num(space.high, posinf=10.0)
        low, high = np.maximum(low, -1e6), np.minimum(high, 1e6)
        at = rng.integers(0, 2, space.shape) if rng.random() < 0.1 else rng.random(space.shape)
        return np.clip((low + at * (high - low)).astype(space.dtype), space.low, space.high)
    space.seed(int(rng.integers(2**31)))
    return space.sample()


def mask_of(obs: Any, info: Any) -> Any:
    """The actions allowed, as the observation or info say; None where neither does."""
    if isinstance(obs, dict) and MASK in obs:
        return np.asarray(obs[MASK])
    return np.asarray(info[MASK]) if isinstance(info, dict) and MASK in info else None


def copied(value: Any) -> Any:
    """A copy of arrays, and of dicts and tuples of them."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(copied(part) for part in value)
    return value


def arrays(value: Any, name: str = "obs") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in an observation, with their places."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from arrays(part, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from arrays(part, f"{name}[{index}]")


def same(one: Any, other: Any) -> bool:
    """Whether two observations, or rewards, are the same to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    try:
        return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind in "fc"))
    except (TypeError, ValueError):
        return bool(one == other)


def first_difference(one: Episode, other: Episode) -> str:
    """What differs first of two episodes, in words; empty if nothing does."""
    if not same(one.first, other.first):
        return "the first observation"
    for number, (row, twin) in enumerate(zip(one.rows, other.rows, strict=False), 1):
        for name in ("obs", "reward", "terminated", "truncated"):
            if not same(getattr(row, name), getattr(twin, name)):
                return f"{'the observation' if name == 'obs' else name} of step {number}"
    return "" if len(one.rows) == len(other.rows) else f"the length ({len(one.rows)} and {len(other.rows)} steps)"
