"""One Gymnasium environment as the toolkit needs it: contract checked, episodes seeded, restorable."""

from __future__ import annotations

import ctypes
import signal
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from hsw.env.life import is_ours
from hsw.env.parts import TupleParts, has_tuples
from hsw.env.place import env_error
from hsw.env.wrappers import packed, unpacked, with_state, with_statistics
from hsw.errors import EnvError
from hsw.output import secure_streams
from hsw.seeding import derive_seed
from hsw.spaces import SpaceSpec, read_space


class EpisodeEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Seeds each episode by (run seed, env index, episode number) and checks what the env returns.

    Seeding every episode is what makes a run reproducible in sync and async alike, and resumable: an episode can be
    rebuilt from its number and its actions, whatever state the env hides.

    Args:
        env: The environment.
        index: Its place among the vector's environments.
        seed: The seed from which the episodes' seeds derive.

    Raises:
        EnvError: From reset and step, if the env raises, exits, or returns something else than its spaces promise.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int, seed: int) -> None:
        super().__init__(env)
        self.index = index
        self.seed = seed
        self.episode = -1
        self._spec = read_space(env.observation_space)
        self._dtype = None if self._spec.type == "Dict" else np.dtype(self._spec.dtype)
        self._finished = False
        self._kept = with_state(env)
        self._before: list[Any] = []  # their states when the running episode began
        self._cast: set[str] = set()  # parts of the observation of which a cast was said

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode; with options={"replay": [(episode, actions), ...]} rebuild a past one instead."""
        if options and "replay" in options:
            return self._replay(*options["replay"][self.index])
        self.episode += 1
        self._finished = False
        if self._kept:
            self._before = [packed(layer.state_dict(), type(layer).__name__) for layer in self._kept]
        episode_seed = derive_seed(self.seed, self.index, self.episode)
        try:
            result = self.env.reset(seed=episode_seed, options=options)
        except BaseException as error:
            if is_ours(error):
                raise
            raise env_error(f"environment {self.index}: reset raised", error) from error
        if not (isinstance(result, tuple) and len(result) == 2):
            raise EnvError(f"environment {self.index}: reset must return (obs, info), got {type(result).__name__}")
        return self._checked(self._spec, result[0]), result[1]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._finished:  # only after a replay that ended its episode: the vector env has not seen that done
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        try:
            result = self.env.step(action)
        except BaseException as error:
            if is_ours(error):
                raise
            raise env_error(f"environment {self.index}: step raised", error) from error
        if not (isinstance(result, tuple) and len(result) == 5):
            got = len(result) if isinstance(result, tuple) else type(result).__name__
            raise EnvError(
                f"environment {self.index}: step must return (obs, reward, terminated, truncated, info), got {got} "
                "values; an env of the old 4-value API needs a wrapper"
            )
        obs, reward, terminated, truncated, info = result
        try:
            reward = float(reward)
        except (TypeError, ValueError):
            raise EnvError(f"environment {self.index}: the reward must be a number, got {reward!r}") from None
        if not (
            type(obs) is np.ndarray
            and obs.dtype == self._dtype
            and obs.shape == self._spec.shape
            and not self._spec.nvec
        ):
            obs = self._checked(self._spec, obs)
        return obs, reward, bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Close the environment; what it raises is said, and spoils no run that is over."""
        try:
            super().close()
        except Exception as error:
            warnings.warn(str(env_error(f"environment {self.index}: close raised", error)), stacklevel=2)

    def render(self) -> Any:
        try:
            return self.env.render()
        except BaseException as error:
            if is_ours(error):
                raise
            raise env_error(f"environment {self.index}: render raised", error) from error

    def _replay(self, episode: int, actions: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
        self.episode = episode - 1
        obs, info = self.reset()
        for action in actions:
            obs, _, terminated, truncated, info = self.step(action)
            self._finished = terminated or truncated
        return obs, info

    # -- wrappers, for the vector's call ----------------------------------------------------------------------------

    def statistics(self) -> list[str]:
        """The names of wrappers whose statistics are lost when the process ends."""
        return with_statistics(self.env)

    def has_state(self) -> bool:
        """Whether wrappers have a state that goes into checkpoints."""
        return bool(self._kept)

    def wrapper_states(self) -> list[Any]:
        """Their states when the running episode began, from which a replay goes on."""
        return self._before

    def load_wrapper_states(self, states: Sequence[Sequence[Any]]) -> None:
        """Load those of this environment, out of every environment's."""
        for layer, state in zip(self._kept, states[self.index], strict=False):
            layer.load_state_dict(unpacked(state))

    def _checked(self, spec: SpaceSpec, obs: Any, name: str = "the observation") -> Any:
        if spec.type == "Dict":
            if not isinstance(obs, dict) or set(obs) != set(spec.spaces):
                got = sorted(obs) if isinstance(obs, dict) else type(obs).__name__
                raise EnvError(f"environment {self.index}: {name} must have the keys {sorted(spec.spaces)}, got {got}")
            return {key: self._checked(part, obs[key], f"obs[{key!r}]") for key, part in spec.spaces.items()}
        if not isinstance(obs, np.ndarray):
            obs = np.asarray(obs)
        if obs.shape != spec.shape:
            raise EnvError(f"environment {self.index}: {name} has shape {obs.shape}, its space says {spec.shape}")
        if obs.dtype != spec.dtype:
            choices = spec.type != "Box" and obs.dtype.kind in "iub"  # whole numbers of any size
            if obs.dtype.kind != np.dtype(spec.dtype).kind and not choices:
                raise EnvError(f"environment {self.index}: {name} is {obs.dtype}, its space says {spec.dtype}")
            if obs.dtype.itemsize > np.dtype(spec.dtype).itemsize and self.index == 0 and name not in self._cast:
                self._cast.add(name)
                warnings.warn(f"{name} is {obs.dtype} and is cast to its space's {spec.dtype}", stacklevel=2)
            obs = obs.astype(spec.dtype)
        if spec.nvec and not ((obs >= 0) & (obs < spec.nvec)).all():
            raise EnvError(f"environment {self.index}: {name} is {obs}, its space says 0 to {_tops(spec)}")
        return obs


def _tops(spec: SpaceSpec) -> str:
    return ", ".join(str(n - 1) for n in spec.nvec)


class EpisodeFactory:
    """A picklable callable that builds one EpisodeEnv, in this process or in a worker of AsyncVectorEnv."""

    def __init__(self, make: Callable[[], Any], index: int, seed: int) -> None:
        self.make, self.index, self.seed = make, index, seed

    def __call__(self) -> EpisodeEnv:
        env = self.build()
        return EpisodeEnv(TupleParts(env) if has_tuples(env.observation_space) else env, self.index, self.seed)

    def build(self) -> Any:
        """What make returns."""
        try:
            return self.make()
        except (ValueError, TypeError, ImportError, EnvError, gym.error.Error):  # no such env, or not with these kwargs
            raise
        except BaseException as error:
            if is_ours(error):
                raise
            raise env_error(f"environment {self.index} could not be built:", error) from error


def become_worker() -> None:
    """Signals are the trainer's to handle (a cluster sends them to the whole group), and no worker outlives it."""
    secure_streams()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):  # Linux: PR_SET_PDEATHSIG
        libc.prctl(1, signal.SIGKILL)
