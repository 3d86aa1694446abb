"""What every pool keeps count of: free and full slots, actors' places, and the patience with those that are lost."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from hsw.agent.actor import Actor, log
from hsw.errors import HswError, WorkersLostError
from hsw.run.trace import log_to_file


class PoolClosed(Exception):
    """There will be no more full slots."""


@dataclass(frozen=True)
class Crew:
    """What a pool is asked to run.

    Attributes:
        actor: What runs in each.
        num_envs: Of each.
        num_actors: How many.
        num_slots: Of the storage.
        seed: The run's.
        session: How often the run has been started; a resumed run's environments do not repeat themselves.
        timeout: Seconds without a step after which an actor that has slots to fill counts as hung.
        max_restarts: How many deaths, hangs and errors are made good, in all.
    """

    actor: Actor
    num_envs: int
    num_actors: int
    num_slots: int
    seed: int
    session: int
    timeout: float
    max_restarts: int


class Seat:
    """The place of one actor, whichever process sits there.

    Attributes:
        lives: How many actors have sat here; the number of the present one.
        alive: Whether slots may be handed to it.
        slots: What it has to fill, in sets of N.
        silent: Seconds for which it should have stepped and has not.
        error, traceback: What it said of its end.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.lives = 0
        self.alive = False
        self.slots: list[int] = []
        self.silent = 0.0
        self.error = self.traceback = ""


AnySeat = TypeVar("AnySeat", bound=Seat)


class Seats(ABC, Generic[AnySeat]):
    """A pool but for how its actors are reached.

    put and get are those of the free and the full slots, as DistributedStorage.sample takes them. What a dead actor had
    not finished is given to another; it was never handed out as full.

    Args:
        crew: What is to run.
        seats: A place for each actor.

    Attributes:
        failure: Why there will be no more full slots, if it is not that the pool was closed.
    """

    def __init__(self, crew: Crew, seats: Sequence[AnySeat]) -> None:
        self.crew = crew
        self.failure: HswError | None = None
        self._lock = threading.Lock()  # of the slots, and of who has them
        self._free = deque(range(crew.num_slots))
        self._seats = list(seats)
        self._full: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._closing = False
        self._restarts_left = crew.max_restarts
        self._first_error = self._first_traceback = ""

    # -- the queues' face -------------------------------------------------------------------------------------------

    def put(self, slot: int) -> None:
        """Give back a slot that was copied."""
        with self._lock:
            self._free.append(slot)
            self._feed()

    def get(self) -> int:
        """The next full slot, in the order in which they were filled.

        Raises:
            PoolClosed: If there will be none.
        """
        slot = self._full.get()
        if slot is None:
            self._full.put(None)  # for whoever else is waiting
            raise PoolClosed
        return slot

    # -- slots ------------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Hand out free slots in whole sets, first to actors that have none, then as the set after the present one."""
        num_envs = self.crew.num_envs
        for held in (0, num_envs):
            for seat in self._seats:
                if seat.alive and len(seat.slots) == held and len(self._free) >= num_envs:
                    slots = [self._free.popleft() for _ in range(num_envs)]
                    seat.slots += slots
                    self._hand(seat, slots)

    @abstractmethod
    def _hand(self, seat: AnySeat, slots: list[int]) -> None:
        """Tell an actor of a set of slots. The lock is held."""

    def _filled(self, seat: AnySeat, slots: Sequence[int]) -> None:
        """Take slots from an actor that has filled them."""
        with self._lock:
            for slot in slots:
                seat.slots.remove(slot)
            self._feed()
        for slot in slots:
            self._full.put(slot)

    def _take_back(self, seat: AnySeat) -> None:
        """Take from an actor what it has not filled; it gets no more."""
        with self._lock:
            seat.alive = False
            self._free.extend(seat.slots)
            seat.slots.clear()

    # -- losses -----------------------------------------------------------------------------------------------------

    def _makes_good(self, seat: AnySeat, what: str) -> bool:
        """Count an actor that is lost. Returns whether another may be started in its place; else the pool has failed.

        Args:
            seat: Whose error and traceback are told, if it has sent them.
            what: Has become of it.
        """
        error = f"actor {seat.index}: {seat.error}" if seat.error else f"actor {seat.index} {what}"
        self._first_error = self._first_error or error
        self._first_traceback = self._first_traceback or seat.traceback
        if self._restarts_left == 0:
            message = f"more actors were lost than agent.max_restarts={self.crew.max_restarts} makes good; the first"
            cause = RuntimeError(self._first_traceback or self._first_error)
            self._fail(WorkersLostError(f"{message} error was: {self._first_error}", self._first_traceback), cause)
            return False
        self._restarts_left -= 1
        if seat.traceback:
            log_to_file(f"actor {seat.index}:\n{seat.traceback}")
        log.warning("%s; it is started again, and %d restarts are left", error, self._restarts_left)
        return True

    def _fail(self, failure: HswError, cause: BaseException | None = None) -> None:
        self.failure = failure
        failure.__cause__ = cause
        self._closing = True
        self._full.put(None)

    def _watch_failed(self, error: Exception) -> None:
        """Let nobody wait for ever because the thread that watches over the actors is gone."""
        message = f"the watch over the actors failed: {type(error).__name__}: {error}"
        self._fail(WorkersLostError(message, self._first_traceback), error)

    @property
    def restarts(self) -> int:
        """How many losses have been made good."""
        return self.crew.max_restarts - self._restarts_left
