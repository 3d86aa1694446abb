"""Environments that do, at one place of their life, what breaks a process rather than a contract.

Culprit-v0 takes what it does and where: `what` in WHATS, `where` in WHERES. In a step it acts once `after` steps were
taken since it was built.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch

from tests.envs import Counter

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
    "handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "raise": lambda: 1 / 0,
}


class Culprit(Counter):
    def __init__(self, what: str = "nothing", where: str = "step", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what, self.where = what, where
        self._act("build")

    def _act(self, where: str) -> None:
        if where == self.where:
            WHATS[self.what]()

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self._act("reset")
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.failing:
            self._act("step")
        return result

    def close(self) -> None:
        self._act("close")


gym.register("Culprit-v0", Culprit)
