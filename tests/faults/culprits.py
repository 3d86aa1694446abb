"""Environments that do, at one place of their life, what breaks a process rather than a contract.

Culprit-v0 takes what it does and where: `what` in WHATS, `where` in WHERES. In a step it acts once `after` steps were
taken since it was built.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tests.envs import Counter, Homing

WHERES = ("build", "reset", "step", "close")


def hang() -> None:
    time.sleep(3600)


def swallow() -> None:
    """Hangs, and takes every error for one of its own."""
    while True:
        try:
            time.sleep(3600)
        except Exception:
            continue


def swallow_all() -> None:
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            continue


def swallow_once() -> None:
    try:
        time.sleep(3600)
    except BaseException:
        time.sleep(3600)


def hang_in_c() -> None:
    """Waits in C for a lock that is never free; other threads run meanwhile."""
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def hang_with_lock() -> None:
    """Hangs in C, and no other thread runs meanwhile."""
    sum(itertools.repeat(0))


def thread() -> None:
    threading.Thread(target=time.sleep, args=(3600,), name="culprit").start()


def interrupt() -> None:
    raise KeyboardInterrupt


def raise_base() -> None:
    raise GeneratorExit("a base exception")


def inference() -> None:
    mode = torch.inference_mode()
    mode.__enter__()
    KEPT.append(mode)


KEPT: list[Any] = []
WHATS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "hang": hang,
    "swallow": swallow,
    "swallow_once": swallow_once,
    "swallow_all": swallow_all,
    "hang_in_c": hang_in_c,
    "hang_with_lock": hang_with_lock,
    "thread": thread,
    "interrupt": interrupt,
    "raise_base": raise_base,
    "exit": lambda: os._exit(0),
    "sys_exit": lambda: sys.exit(0),
    "no_grad": lambda: torch.set_grad_enabled(False),
    "grad": lambda: torch.set_grad_enabled(True),
    "float64": lambda: torch.set_default_dtype(torch.float64),
    "inference": inference,
    "meta_device": lambda: torch.set_default_device("meta"),
    "chdir": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o777),
    "handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "raise": lambda: 1 / 0,
}


def lose_stream() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout.close()


# What environments do without meaning harm.
QUIET: dict[str, Callable[[], Any]] = {
    "seed_torch": lambda: torch.manual_seed(7),
    "strict_warnings": lambda: warnings.simplefilter("error"),
    "strict_numpy": lambda: np.seterr(all="raise"),
    "threads": lambda: torch.set_num_threads(2),
    "environ": os.environ.clear,
    "stream": lose_stream,
    "seed_others": lambda: (np.random.seed(7), random.seed(7)),
    "print_options": lambda: (np.set_printoptions(precision=2), torch.set_printoptions(precision=2)),
}
WHATS |= QUIET


def act(what: str) -> None:
    """Do it; the file that CULPRIT names says that it is about to be done."""
    if what != "nothing" and (path := os.environ.get("CULPRIT")):
        Path(path).touch()
    WHATS[what]()


class Culprit(Counter):
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012, as Gymnasium has it

    def __init__(
        self, what: str = "nothing", where: str = "step", render_mode: str | None = None, late: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.late = late  # so many resets are sound
        self.render_mode = render_mode
        self.what, self.where = what, where
        self._act("build")

    def _act(self, where: str) -> None:
        if where == self.where:
            act(self.what)

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.late -= 1
        if self.late < 0:
            self._act("reset")
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            self._act("step")
        return result

    def render(self) -> Any:
        self._act("render")
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        self._act("close")


gym.register("Culprit-v0", Culprit)


def broken_rewards(how: str, sound: Any) -> Any:
    """What a compute_reward gives that breaks: `sound` is what it should give."""
    if how in WHATS:
        WHATS[how]()
    return {
        "not_a_number": sound * np.nan,
        "huge": sound * 1e39,
        "shape": np.zeros((np.size(sound), 2)),
        "text": "reward",
        "words": np.full(np.shape(sound), "1"),
        "none": None,
        "complex": sound * 1j,
        "ragged": [[1], [2, 3]],
    }.get(how, sound)


class Goal(Homing):
    """Culprits of goals: `what` does compute_reward, or compute_terminated, once it has been called `after` times.

    Its own steps do not count.
    """

    def __init__(self, what: str = "nothing", where: str = "compute_reward", after: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what, self.where, self.late, self.calls, self.stepping = what, where, after, 0, False

    def step(self, action: Any) -> Any:
        self.stepping = True
        result = super().step(action)
        self.stepping = False
        return result

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        ends = super().compute_terminated(achieved_goal, desired_goal, info)
        return self._act("compute_reward", ends.astype(np.float64) - 1)

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return self._act("compute_terminated", super().compute_terminated(achieved_goal, desired_goal, info))

    def _act(self, where: str, sound: Any) -> Any:
        if where != self.where or self.stepping:
            return sound
        self.calls += 1
        return broken_rewards(self.what, sound) if self.calls > self.late else sound


gym.register("CulpritGoal-v0", Goal)


class Native(gym.vector.VectorEnv):
    """A vector environment of one piece, as native ones are, that does in its step what `what` says."""

    metadata: dict[str, Any] = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, what: str = "nothing", where: str = "step", after: int = 0) -> None:
        self.num_envs, self.what, self.where, self.after = num_envs, what, where, after
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.count = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if self.where == "reset":
            act(self.what)
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.count += 1
        if self.where == "step" and self.count * self.num_envs > self.after:
            act(self.what)
        obs = np.full((self.num_envs, 1), self.count % 5, np.float32)
        done = np.full(self.num_envs, self.count % 6 == 5)
        return obs, np.ones(self.num_envs), done, np.zeros(self.num_envs, bool), {}

    def close_extras(self, **kwargs: Any) -> None:
        if self.where == "close":
            act(self.what)


gym.register("CulpritNative-v0", vector_entry_point=Native)
