"""An environment with one fault that a generator drew: what it does, where in its life, and after how many steps."""

from __future__ import annotations

import builtins
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from tests.envs import Counter
from tests.faults.culprits import WHATS as CULPRITS

WHERES = ("build", "reset", "step", "close")
HANGS = ("hang", "swallow", "swallow_once", "swallow_all", "hang_in_c", "hang_with_lock")
EXITS = ("exit", "sys_exit", "interrupt", "raise_base")
LEAVES = ("no_grad", "float64", "inference", "meta_device", "chdir", "handler", "thread")


class Unpicklable(Exception):
    """Cannot be made again from its arguments, nor be sent."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("cannot be sent")
        self.inner = lambda: None


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def _plain(kind: Any) -> bool:
    """Whether an exception can be made of one text. Those that a person's Ctrl-C brings are no environment's."""
    try:
        return issubclass(kind, Exception) and not issubclass(kind, Warning) and bool(kind("x"))
    except TypeError:
        return False


EXCEPTIONS = sorted(name for name, kind in vars(builtins).items() if isinstance(kind, type) and _plain(kind))
TEXTS = ("", "a word", "\x1b[2Jgone", "é" * 3000, "line\nTraceback (most recent call last):\n", "\ud800", "%s {}")
DTYPES = ("float16", "float64", "int8", "int64", "uint16", "bool", "complex64", "U3", "object")
KINDS: dict[str, Any] = {"none": None, "text": "obs", "list": [1.0], "dict": {"a": 1}, "object": object(), "int": 3}
REWARDS: dict[str, Any] = {
    "nan": np.nan,
    "inf": np.inf,
    "huge": 1e39,
    "none": None,
    "text": "1",
    "list": [1.0, 2.0],
    "array": np.ones(2),
    "complex": 1j,
    "int": 1,
    "bool": True,
    "one": np.ones(1),
    "long": 10**400,
}
FLAGS: dict[str, Any] = {"none": None, "two": 2, "text": "no", "array": np.array([True, False]), "nan": np.nan}
INFOS: dict[str, Any] = {
    "none": None,
    "list": [1],
    "lives": {"lives": 3, "terminated": 1},
    "text": "info",
    "mixed": {"a": 1, 3: "b", None: object()},
    "final": {"final_obs": 1, "_final_obs": True, "episode": {"r": 1}},
}
FATAL, EITHER, HARMLESS = "fatal", "either", "harmless"


def draw(rng: random.Random, continuous: bool = False) -> tuple[dict[str, Any], str]:
    """A fault, as the environment's arguments, and whether a run may go on with it."""
    where = rng.choice(WHERES)
    everywhere = ("raise", "raise", "unpicklable", "wordless", "print", "nothing", *HANGS, *EXITS, *LEAVES)
    of_obs = ("shape", "dtype", "kind", "nonfinite", "reuse", "arity", "info")
    of_step = ("reward", "reward", "flag")
    choices = {"reset": everywhere + of_obs * 2, "step": everywhere + (of_obs + of_step) * 2}
    what = rng.choice(choices.get(where, everywhere))
    arguments: dict[str, Callable[[], Any]] = {
        "raise": lambda: [rng.choice(EXCEPTIONS), rng.randrange(len(TEXTS))],
        "print": lambda: [rng.choice(("stdout", "stderr")), rng.randrange(len(TEXTS)), rng.choice((1, 100, 5000))],
        "shape": lambda: [rng.randrange(4) for _ in range(rng.randrange(4))],
        "dtype": lambda: rng.choice(DTYPES),
        "kind": lambda: rng.choice(sorted(KINDS)),
        "nonfinite": lambda: rng.choice(("nan", "inf", "-inf")),
        "reward": lambda: rng.choice(sorted(REWARDS)),
        "flag": lambda: [rng.randrange(2), rng.choice(sorted(FLAGS))],
        "info": lambda: rng.choice(sorted(INFOS)),
        "arity": lambda: rng.choice((0, 1, 3, 4, 6)),
    }
    argument = arguments[what]() if what in arguments else None
    judgement = FATAL
    if what in ("print", "nothing", "reuse") or (what == "dtype" and argument == "float64"):
        judgement = HARMLESS
    elif what in ("dtype", "flag", "info", "reward", "kind") or (what == "shape" and argument == [1]):
        judgement = EITHER  # what can be taken for what it should be may be taken
    elif where == "close" or what in LEAVES:
        judgement = EITHER  # a process that ends is nobody's; where it is looked at depends on the backend
    if what == "reward" and argument in ("nan", "inf", "huge", "none", "array", "list", "complex", "long"):
        judgement = FATAL
    return {"what": what, "where": where, "after": rng.randrange(50), "argument": argument}, judgement


class Bad(Counter):
    """Counts, and does at one place of its life what it is told to.

    Args:
        what, where, argument: See draw.
        after: Steps since it was built, or resets, after which it acts.
        mark: A file that is made when it acts.
    """

    def __init__(
        self, what: str, where: str, after: int = 0, argument: Any = None, mark: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(after=after, **kwargs)
        self.what, self.where, self.argument, self.mark = what, where, argument, mark
        self.resets = 0
        self.buffer = np.zeros(1, np.float32)
        if where == "build":
            self._act()

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        result = super().reset(**kwargs)
        due = self.where == "reset" and self.resets > self.after // 10
        return self._act(list(result)) if due else result

    def step(self, action: Any) -> Any:
        result = super().step(action)
        return self._act(list(result)) if self.where == "step" and self.failing else result

    def observe(self) -> np.ndarray:
        if self.what != "reuse":
            return np.array([self.count], np.float32)
        self.buffer[:] = self.count
        return self.buffer

    def close(self) -> None:
        if self.where == "close":
            self._act()

    def _act(self, result: list[Any] | None = None) -> Any:
        """Do it. Returns what comes of the result of a reset or a step."""
        if self.mark:
            Path(self.mark).touch()
        result = result if result is not None else [np.zeros(1, np.float32), {}]
        if self.what in CULPRITS and self.what != "raise":
            CULPRITS[self.what]()
        elif self.what == "raise":
            raise getattr(builtins, self.argument[0])(TEXTS[self.argument[1]])
        elif self.what == "unpicklable":
            raise Unpicklable(1, 2)
        elif self.what == "wordless":
            raise Wordless
        elif self.what == "print":
            print(TEXTS[self.argument[1]].replace("\ud800", "") * self.argument[2], file=getattr(sys, self.argument[0]))
        elif self.what == "arity":
            return tuple((result * 2)[: self.argument]) if self.argument != len(result) else None
        else:
            self._spoil(result)
        return tuple(result)

    def _spoil(self, result: list[Any]) -> None:
        if self.what == "shape":
            result[0] = np.zeros(self.argument, np.float32)
        elif self.what == "dtype":
            result[0] = result[0].astype(self.argument)
        elif self.what == "kind":
            result[0] = KINDS[self.argument]
        elif self.what == "nonfinite":
            result[0] = np.full(1, float(self.argument), np.float32)
        elif self.what == "info":
            result[-1] = INFOS[self.argument]
        elif self.what == "reward":
            result[1] = REWARDS[self.argument]
        elif self.what == "flag":
            result[2 + self.argument[0]] = FLAGS[self.argument[1]]


gym.register("Bad-v0", f"{__name__}:Bad")
