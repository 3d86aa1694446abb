"""SIGINT, SIGTERM and a cluster's SIGUSR2: the first asks the run to save and stop, the second stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType


class StopSignals:
    """While active, remembers which signal asked the run to stop. Loops look at `requested` between rows."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            asked = [signal.SIGINT, signal.SIGTERM]
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
        self._previous.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # Whoever sends SIGTERM after SIGINT, or twice, has waited long enough; a cluster's SIGTERM may come to the
        # process and to its group, so the same signal within a moment is one.
        if self.requested is not None and signum == signal.SIGINT:
            os._exit(128 + signum)
        self.requested = signum
