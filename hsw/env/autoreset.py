"""When a backend resets: every mode of Gymnasium's vector environments as NEXT_STEP, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from hsw.env.guard import GuardedBackend
from hsw.errors import ConfigError, EnvError
from hsw.spaces import tree_map

Row = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


def in_next_step_mode(backend: Any, timeout: float | None) -> GuardedBackend:
    """A guarded backend whose step after a done resets, whatever the mode of the backend (see VectorEnv).

    A single environment is translated exactly. Several in SAME_STEP or DISABLED mode cannot be: each of their steps
    steps all environments, and the one that was reset would take a step while the policy has not seen where it began.

    Raises:
        ConfigError: If the mode is another and cannot be translated, or unknown.
    """
    name = type(getattr(backend, "unwrapped", backend)).__name__
    said = (getattr(backend, "metadata", None) or {}).get("autoreset_mode")
    if said is None:
        if not isinstance(backend, gym.vector.VectorEnv):
            return GuardedBackend(backend, timeout)
        warnings.warn(f"{name}.metadata has no autoreset_mode; NEXT_STEP is assumed", stacklevel=3)
        return _Unsaid(backend, timeout)
    try:
        mode = AutoresetMode(said)
    except ValueError:
        known = ", ".join(mode.value for mode in AutoresetMode)
        raise ConfigError(f"{name}.metadata says autoreset_mode={said!r}, which is none of {known}") from None
    if mode is AutoresetMode.NEXT_STEP:
        return GuardedBackend(backend, timeout)
    if backend.num_envs > 1:
        raise ConfigError(
            f"{name} has {backend.num_envs} environments in autoreset mode {mode.name}, in which no step can wait for "
            "one environment's reset; make it with autoreset_mode=AutoresetMode.NEXT_STEP, or let hsw step the single "
            "environments (env.backend=sync or async)"
        )
    return _Translated(backend, timeout, mode)


class _Translated(GuardedBackend):
    """One environment in SAME_STEP or DISABLED mode, with a reset row of its own after each episode."""

    def __init__(self, backend: Any, timeout: float | None, mode: AutoresetMode) -> None:
        super().__init__(backend, timeout)
        self._mode = mode
        self._done = False
        self._first: Any = None  # of the next episode, which SAME_STEP has begun

    def reset(self, options: dict[str, Any] | None = None) -> Any:
        self._done = False
        return super().reset(options)

    def step(self, actions: Any) -> Row:
        if self._done:
            self._done = False
            first = self._first if self._mode is AutoresetMode.SAME_STEP else super().reset()
            return first, np.zeros(1), np.zeros(1, bool), np.zeros(1, bool), self.reset_info
        obs, rewards, terminateds, truncateds, info = super().step(actions)
        self._done = bool(terminateds[0] or truncateds[0])
        if self._done and self._mode is AutoresetMode.SAME_STEP:
            self._first = tree_map(np.array, obs)
            if "final_obs" not in info:
                raise EnvError("environment 0: it is in autoreset mode SAME_STEP, and its info has no final_obs")
            obs = _row(info["final_obs"])
            self.reset_info = {key: part for key, part in info.items() if not key.lstrip("_").startswith("final_")}
            info = info.get("final_info", {})
        return obs, rewards, terminateds, truncateds, info


class _Unsaid(GuardedBackend):
    """A backend that is taken to be in NEXT_STEP mode until it shows another."""

    def step(self, actions: Any) -> Row:
        row: Row = super().step(actions)
        if "final_obs" in row[4]:
            raise EnvError(
                "environment 0: a step's info has final_obs, as in autoreset mode SAME_STEP, and the metadata has no "
                "autoreset_mode; say the mode there"
            )
        return row


def _row(final: Any) -> Any:
    """The last observation of environment 0 as a batch of one, from an array of observations or a dict of arrays."""
    if isinstance(final, dict):
        return {key: _row(part) for key, part in final.items() if not key.startswith("_")}
    return tree_map(lambda part: np.asarray(part)[None], final[0])
