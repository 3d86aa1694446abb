"""A limit to the time that foreign code takes in the main thread: the one alarm of the process."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

from hsw import ending

AGAIN = 1.0  # seconds from an alarm to the next: the code may have swallowed the first
PATIENCE, PATIENCE_AT_STOP = 5, 2  # alarms that may be swallowed
AT_STOP = 4.0  # seconds that are left to a call once the run was asked to stop

_MAIN = threading.main_thread().ident
_running: Deadline | None = None
_hurry: float | None = None
_stop_code: int | None = None
_previous: Any = None
_users: weakref.WeakSet[Deadline] = weakref.WeakSet()  # one that nobody closes counts until it is gone
_heard: Callable[[int], None] | None = None


class Overdue(BaseException):
    """The body of a Deadline took too long. Not an Exception, which foreign code may take for one of its own."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s")
        self.seconds = seconds


class Deadline:
    """Raises Overdue in its body when that outlasts the limit, and again every second while the body goes on.

    A body that swallows even those ends the process, with `exit_code`. Only the main thread can be interrupted;
    elsewhere, and in the body of another Deadline, this one does nothing. Between open and close the handler stands,
    because to set it for each call would cost as much as a small environment's step.

    Args:
        seconds: The limit; None is none, but for a stop (see hurry).
        what: What the body is, for the sentence.
        exit_code: Of the process, if it has to be ended.
    """

    def __init__(self, seconds: float | None, what: str, exit_code: int) -> None:
        self.seconds, self.what, self.exit_code = seconds, what, exit_code
        self._open = False
        self._alarms = 0
        self._entered = False
        self.limit: float | None = None

    def open(self) -> None:
        """Take the alarm."""
        global _previous
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGALRM) is not _ring:  # also if someone else took it meanwhile
            _previous = signal.signal(signal.SIGALRM, _ring)
        _users.add(self)
        self._open = True

    def close(self) -> None:
        """Give the alarm back."""
        if not self._open or threading.current_thread() is not threading.main_thread():
            return
        _users.discard(self)
        self._open = False
        if not _users and signal.getsignal(signal.SIGALRM) is _ring:
            signal.signal(signal.SIGALRM, _previous or signal.SIG_DFL)

    def __enter__(self) -> Deadline:
        global _running
        if not self._open or _running is not None or threading.get_ident() != _MAIN:
            return self
        self._alarms, self._entered = 0, True
        self.limit = limit = self.seconds if _hurry is None else min(self.seconds or _hurry, _hurry)
        _running = self
        if limit:
            signal.setitimer(signal.ITIMER_REAL, limit, AGAIN)
        return self

    def __exit__(self, *exc_info: object) -> None:
        global _running
        if self._entered:
            self._entered = False
            while True:  # an alarm that comes at this very moment is too late to count
                try:
                    _running = None
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    break
                except Overdue:
                    continue
            if self._alarms:
                free_logging()

    def ring(self) -> None:
        """The alarm."""
        self._alarms += 1
        if self._alarms > (PATIENCE if _stop_code is None else PATIENCE_AT_STOP):
            sentence = f"{self.what} took longer than {self.limit:g} s and does not let go"
            if _stop_code is None:
                ending.end_now(self.exit_code, sentence)
            ending.end_now(_stop_code, f"stopped by signal {_stop_code - 128}: {sentence}")
        raise Overdue(self.limit or 0.0)


def free_logging() -> None:
    """Release the locks of logging that this thread holds, when it is out of whatever logged.

    What a signal's handler raises between taking a lock and the try that gives it back leaves it taken, and another
    thread that logs would wait for ever.
    """
    locks: list[Any] = [getattr(logging, "_lock", None)]
    locks += [getattr(reference(), "lock", None) for reference in getattr(logging, "_handlerList", ())]
    for lock in filter(None, locks):
        with contextlib.suppress(AttributeError, RuntimeError):
            while lock._is_owned():
                lock.release()


def running() -> Deadline | None:
    """The Deadline whose body the main thread is in."""
    return _running


def hurry(code: int, seconds: float = AT_STOP) -> None:
    """Leave the body that runs, and each that begins from now on, no more than this, because the run is to stop.

    Args:
        code: With which the process then ends.
        seconds: The limit.
    """
    global _hurry, _stop_code
    _hurry, _stop_code = seconds, code
    deadline = _running
    if deadline is not None:
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        if not left or left > seconds:
            deadline.limit = seconds
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)


def no_hurry() -> None:
    """Whoever had to stop has stopped."""
    global _hurry, _stop_code
    _hurry = _stop_code = None


def on_heard(tell: Callable[[int], None] | None) -> None:
    """Let someone know of each signal that Python gets to handle: it hangs nowhere in C."""
    global _heard
    _heard = tell


def heard(signum: int) -> None:
    """Called by handlers of signals first."""
    if _heard is not None:
        _heard(signum)


def _ring(*_: object) -> None:
    heard(signal.SIGALRM)
    if _running is not None:
        _running.ring()
