"""Turns of ranks: what one does while the others wait, through a store that all of them reach.

Unlike a collective, a turn may take as long as it likes: whoever waits looks whether the other lives.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from hsw.errors import WorkersLostError

T = TypeVar("T")
_BEAT_SECONDS = 1.0
_PAUSES = (*(0.001 * 1.5**n for n in range(10)), *[0.05] * 18)  # seconds: most turns are short


class Watch(Protocol):
    """Who knows which rank died, hangs or failed; see hsw.run.rank_watch."""

    def check(self) -> None:
        """Raise the error that ends all ranks, if there is one."""

    def explain(self, error: Exception) -> Exception:
        """The error that ends all ranks, of one that a call to them raised."""


class Turns:
    """This process among its ranks, without what they compute.

    Args:
        rank: Which one this is, from 0.
        size: How many there are.
        store: A torch.distributed.Store that all of them reach; one rank alone needs none.
        timeout: Seconds after which a rank that does not answer counts as lost.
    """

    def __init__(self, rank: int, size: int, store: Any, timeout: float) -> None:
        self.rank, self.size, self.store, self.timeout = rank, size, store, timeout
        self.is_first = rank == 0
        self.watch: Watch | None = None
        self.calls = 0  # of the others: each rank makes the same ones, and one that hangs has made fewer
        self._turns = 0
        self._ended = threading.Event()
        if size > 1:
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def first(self, work: Callable[[], T]) -> T:
        """What rank 0 makes of work, for every rank; the others wait as long as rank 0 lives, however long that takes.

        Args:
            work: Called on rank 0 alone. What it returns is what JSON can hold.

        Raises:
            WorkersLostError: On the others, if it raised on rank 0, or rank 0 is lost.
        """
        if self.size == 1:
            return work()
        self._turns += 1
        self.calls += 1
        key = f"turn/{self._turns}"
        if not self.is_first:
            told = json.loads(self._wait(key))
            if self.store.add(f"{key}/read", 1) == self.size - 1:
                self.store.delete_key(f"{key}/read")
                self.store.delete_key(key)
            if "error" in told:
                raise WorkersLostError(f"rank 0 failed: {told['error']}")
            result: T = told["result"]
            return result
        try:
            result = work()
            told = json.dumps({"result": result})
        except BaseException as error:
            self.store.set(key, json.dumps({"error": f"{type(error).__name__}: {error}"}))
            raise
        self.store.set(key, told)
        return result

    def each(self, values: dict[str, Any]) -> list[dict[str, Any]] | None:
        """As gather, of what takes a rank long to make: it is waited for as long as it lives."""
        if self.size == 1:
            return [values]
        self._turns += 1
        self.calls += 1
        key = f"turn/{self._turns}"
        if not self.is_first:
            self.store.set(f"{key}/{self.rank}", json.dumps(values))
            return None
        told = [values]
        for other in range(1, self.size):
            told.append(json.loads(self._wait(f"{key}/{other}", other)))
            self.store.delete_key(f"{key}/{other}")
        return told

    def _wait(self, key: str, whose: int = 0) -> str:
        """The text that a rank puts under a key, once it does."""
        beat, since = b"", time.monotonic()
        try:
            while not self._comes(key):
                if self.watch is not None:
                    self.watch.check()
                if (now := self.store.get(f"beat/{whose}")) != beat:
                    beat, since = now, time.monotonic()
                if time.monotonic() - since > self.timeout:
                    raise WorkersLostError(f"rank {whose} has not been heard of for {self.timeout:g} s")
            text: str = self.store.get(key).decode()
        except RuntimeError as error:  # also torch's own, of the store
            raise self._lost(error) from error
        return text

    def _comes(self, key: str) -> bool:
        """Whether the store has a key within a second. Its own wait would warn of every second that it waited."""
        for pause in _PAUSES:
            if self.store.check([key]):
                return True
            time.sleep(pause)
        return False

    def _beat(self) -> None:
        store, number = self.store.clone(), 0  # a connection of its own, which nobody else waits on
        try:
            while not self._ended.is_set():
                store.set(f"beat/{self.rank}", str(number))
                number += 1
                self._ended.wait(_BEAT_SECONDS)
        except RuntimeError:  # the store is gone, and whoever asks it next will say so
            return

    def _lost(self, error: Exception) -> Exception:
        """The one sentence for whatever a collective or the store raised."""
        if self.watch is not None:
            return self.watch.explain(error)
        reason = str(error).partition("\n")[0]
        return WorkersLostError(f"rank {self.rank} of {self.size} has lost the others: {reason}")

    def stop(self) -> None:
        self._ended.set()
