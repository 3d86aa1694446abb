"""Batches that are loaded ahead of the updates."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any


class BatchLoader:
    """Threads that load batches, each at most one ahead of what is taken.

    Args:
        load: Waits for a batch and returns it. What it raises is handed over in the batch's place, and ends its thread.
        num_threads: How many load at once.

    Attributes:
        waited: Seconds that get has waited.
    """

    def __init__(self, load: Callable[[], Any], num_threads: int) -> None:
        self._load = load
        self._batches: queue.Queue[Any] = queue.Queue(num_threads)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(num_threads)]
        self.waited = 0.0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def get(self, check: Callable[[], None]) -> Any:
        """The next batch, or the exception that came instead of it; check is called while it is waited for."""
        asked = time.monotonic()
        while True:
            check()
            try:
                batch = self._batches.get(timeout=0.1)
                break
            except queue.Empty:
                continue
        self.waited += time.monotonic() - asked
        return batch

    def stop(self) -> None:
        """Load no more; a load that waits must still be ended."""
        self._stopping.set()

    def join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def _run(self) -> None:
        batch: Any = None
        while not isinstance(batch, Exception) and not self._stopping.is_set():
            try:
                batch = self._load()
            except Exception as error:
                batch = error
            while not self._stopping.is_set():
                try:
                    self._batches.put(batch, timeout=0.1)
                    break
                except queue.Full:
                    continue
