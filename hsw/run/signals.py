"""SIGINT, SIGTERM (SIGHUP is one) and a cluster's SIGUSR2: the first asks the run to save and stop.

A second SIGINT stops it at once. The first also shortens the time that an environment has to answer, see hsw.deadline.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

from hsw import deadline, ending

_ONE_SIGNAL = 0.5  # seconds
_deaf = False


def deaf() -> bool:
    """Whether a stop is of no use any more: the run is ending by an error of another process, and its launcher stops
    all for it."""
    return _deaf


def set_deaf(value: bool) -> None:
    """Let the signals that ask for a stop be without effect, or not."""
    global _deaf
    _deaf = value


class StopSignals:
    """While active, remembers which signal asked the run to stop. Loops look at `requested` between rows."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._asked = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            asked = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's
                asked.append(signal.SIGHUP)
            if callable(signal.getsignal(signal.SIGUSR2)):  # a cluster's, which requeues the job: only once it is saved
                asked.append(signal.SIGUSR2)
            for signum in asked:
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        if self._previous:
            deadline.no_hurry()
        self._previous.clear()

    @property
    def listening(self) -> bool:
        """Whether a SIGTERM would be taken as a request."""
        return signal.getsignal(signal.SIGTERM) == self._handle

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        deadline.heard(signum)
        if deaf() and signum != signal.SIGINT:
            return
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum  # the terminal is gone
        # Whoever sends SIGINT twice has waited long enough. But a terminal's comes to the whole group, and once more
        # from a launcher that hands it on: within a moment they are one. A cluster's SIGTERM may come again and again.
        if self.requested is None:
            self._asked = time.monotonic()
        elif signum == signal.SIGINT and time.monotonic() - self._asked > _ONE_SIGNAL:
            ending.end_now(128 + signum, "stopped at once by a second SIGINT")
        self.requested = signum
        deadline.hurry(128 + signum)
