"""Environments' code, from construction to close: it answers in time, does not end the process, and leaves no trace."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import thread as pools
from types import TracebackType
from typing import Any, ClassVar, NoReturn

import torch

from hsw import deadline, ending
from hsw.deadline import Deadline, Overdue
from hsw.env.traces import Traces, restore_torch
from hsw.errors import EnvError, EnvHangs, Interrupted

_active: dict[int, threading.Thread] = vars(threading)["_active"]  # active_count takes a lock, twice in every row
_LAST_WORD = 2.0  # seconds for an environment to close that hung before, or while the run stops


_unclaimed: list[threading.Thread] = []  # begun in constructions; the next life to open has them


class ExitCalled(BaseException):
    """os._exit was called in an environment."""


def is_ours(error: BaseException) -> bool:
    """Whether an error that came out of an environment's code is none of the environment's."""
    if isinstance(error, Overdue | Interrupted):
        return True
    # A person's Ctrl-C raises this only while Python's own handler stands; a run has another.
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Life:
    """The life of a backend's environments. `with life.during("step"): ...` is around every call into their code.

    Args:
        timeout: Seconds after which an environment counts as hung; None waits for ever, but when the run is to stop.

    Raises:
        EnvHangs: Out of the body, if it takes longer.
        EnvError: Out of the body, if it left torch, the process's handlers or its folder changed, which are put back.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.hung = False
        self.threads: list[threading.Thread] = []  # that they have started, and that would keep the process alive
        self._what, self._looks = "", True
        self._deadline = Deadline(timeout, "an environment", EnvError.exit_code)
        self._torch: tuple[Any, ...] = ()
        self._traces: Traces | None = None
        self._known: set[threading.Thread] = set()

    def open(self) -> None:
        """Take the alarm; a body that comes before does so too."""
        self._deadline.open()
        _Exit.replace(self)
        self.threads += _unclaimed
        _unclaimed.clear()

    def close(self) -> None:
        """Give back what open took.

        Raises:
            EnvError: If the environments left threads that would keep the process alive.
        """
        self._deadline.close()
        _Exit.put_back(self)
        end = time.monotonic() + 1.0
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        left = [thread for thread in self.threads if thread.is_alive() and thread not in pools._threads_queues]
        self.threads.clear()
        if left:
            ending.strays.extend(left)
            names = ", ".join(thread.name for thread in left)
            raise EnvError(f"the environments left threads running after close: {names}; make them daemons")

    def last_word(self) -> None:
        """Leave close little time, where there is no hope."""
        if self.hung:
            self._deadline.seconds = min(_LAST_WORD, self.timeout or _LAST_WORD)

    def during(self, what: str, look: bool = True) -> Life:
        """What the body is, for the sentence; `look` for all that it may leave behind: that takes as long as a step."""
        self._what, self._looks = what, look
        self._deadline.what = f"the environments' {what}"
        return self

    def __enter__(self) -> None:
        self._torch = torch.is_grad_enabled(), torch.get_default_dtype()
        self._traces = Traces() if self._looks else None
        if len(_active) != len(self._known):
            self._known = set(threading.enumerate())
        self._deadline.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadline.__exit__()
        if len(_active) > len(self._known):
            begun = set(threading.enumerate()) - self._known
            self.threads += [thread for thread in begun if not thread.daemon]
        changed = ""
        if (torch.is_grad_enabled(), torch.get_default_dtype()) != self._torch:
            changed = restore_torch(*self._torch)
        if self._traces is not None:
            changed = self._traces.put_back() or changed
        if error is None and not changed:
            return
        if isinstance(error, Overdue):
            self.hung = True
            raise EnvHangs(f"the environments' {self._what} did not answer within {error.seconds:g} s") from error
        if isinstance(error, ExitCalled) or (
            isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) and not is_ours(error)
        ):
            raise EnvError(f"the environments' {self._what} raised {_told(error)}") from error
        if changed and error is None:
            raise EnvError(f"the environments' {self._what} left {changed} behind; it is put back")


@contextlib.contextmanager
def construction(timeout: float | None) -> Iterator[Life]:
    """Around the construction of environments: as a call into their code, and their processes end if it fails."""
    life = Life(timeout)
    life.open()
    before = set(multiprocessing.active_children())
    try:
        with life.during("construction"):
            yield life
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
            process.join()
        with contextlib.suppress(EnvError):
            life.close()
        raise
    _unclaimed.extend(life.threads)  # they may serve until close
    life.threads.clear()
    life.close()


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, ExitCalled) else f"{type(error).__name__}: {error}".rstrip(": ")


class _Exit:
    """os._exit, which no one can catch, while environments are open: in their code it raises ExitCalled."""

    users: ClassVar[weakref.WeakSet[Life]] = weakref.WeakSet()
    pid = 0

    @classmethod
    def replace(cls, life: Life) -> None:
        cls.users.add(life)
        cls.pid = os.getpid()
        os._exit = cls.call

    @classmethod
    def put_back(cls, life: Life) -> None:
        cls.users.discard(life)
        if not cls.users:
            os._exit = ending.leave

    @classmethod
    def call(cls, status: int) -> NoReturn:
        theirs = deadline.running() is not None and threading.current_thread() is threading.main_thread()
        if theirs and os.getpid() == cls.pid:  # a forked child ends as it likes
            raise ExitCalled(f"os._exit({status})")
        ending.leave(status)
