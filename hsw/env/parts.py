"""Parts of observations in a form that networks take: tuples as dicts, sentences as numbers."""

from __future__ import annotations

import zlib
from typing import Any

import gymnasium as gym
import numpy as np


class TupleParts(gym.ObservationWrapper[Any, Any, Any]):
    """Shows a Tuple, at any depth, as a Dict with the parts part_0, part_1, ..."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = _space_without_tuples(env.observation_space)

    def observation(self, observation: Any) -> Any:
        return without_tuples(observation)


class Sentences(gym.ObservationWrapper[Any, Any, Any]):
    """Shows the parts of a Dict that are text as the numbers of their words, or leaves them out.

    Args:
        env: Observes a Dict.
        words: How many words of a text are shown, each as a number that is a checksum of it, 0 where there are fewer;
            0 leaves the text out.
        vocabulary: Words have numbers from 1 to one less than this; two may have the same.
    """

    def __init__(self, env: gym.Env[Any, Any], words: int = 0, vocabulary: int = 128) -> None:
        super().__init__(env)
        self.words, self.vocabulary = words, vocabulary
        space: Any = env.observation_space
        self._texts = [key for key, part in space.spaces.items() if isinstance(part, gym.spaces.Text) or _is_own(part)]
        parts = {key: part for key, part in space.spaces.items() if key not in self._texts}
        if words:
            parts |= {key: gym.spaces.MultiDiscrete([vocabulary] * words) for key in self._texts}
        self.observation_space = gym.spaces.Dict(parts)

    def observation(self, observation: Any) -> Any:
        shown = {key: part for key, part in observation.items() if key not in self._texts}
        return {**shown, **({key: self._numbers(observation[key]) for key in self._texts} if self.words else {})}

    def _numbers(self, text: str) -> np.ndarray:
        numbers = np.zeros(self.words, np.int64)
        for place, word in enumerate(text.lower().replace(",", " ").split()[: self.words]):
            numbers[place] = 1 + zlib.crc32(word.encode()) % (self.vocabulary - 1)
        return numbers


def has_tuples(space: gym.Space[Any]) -> bool:
    """Whether a space is a Tuple, or has one within its Dicts."""
    if isinstance(space, gym.spaces.Dict):
        return any(map(has_tuples, space.spaces.values()))
    return isinstance(space, gym.spaces.Tuple)


def without_tuples(obs: Any) -> Any:
    """An observation with dicts in the place of tuples."""
    if isinstance(obs, tuple):
        obs = {f"part_{i}": part for i, part in enumerate(obs)}
    return {key: without_tuples(part) for key, part in obs.items()} if isinstance(obs, dict) else obs


def _space_without_tuples(space: Any) -> gym.Space[Any]:
    if isinstance(space, gym.spaces.Tuple):
        space = gym.spaces.Dict({f"part_{i}": part for i, part in enumerate(space.spaces)})
    if isinstance(space, gym.spaces.Dict):
        return gym.spaces.Dict({key: _space_without_tuples(part) for key, part in space.spaces.items()})
    plain: gym.Space[Any] = space
    return plain


def _is_own(space: gym.Space[Any]) -> bool:
    """A kind of space that an environment brings with it, whose elements are words."""
    return not type(space).__module__.startswith("gymnasium.") and isinstance(space.sample(), str)
