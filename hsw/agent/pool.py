"""The actors' processes: started, fed with free slots, watched, started again, ended."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import queue
import resource
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hsw.agent import actor as actor_module
from hsw.agent.actor import HEARTBEAT, Actor
from hsw.errors import ConfigError, WorkersLostError
from hsw.run.trace import log_to_file

_WATCH_SECONDS = 1.0
_START_ATTEMPTS = 30


class PoolClosed(Exception):
    """There will be no more full slots."""


class ActorPool:
    """Actors in processes of their own, each behind a pipe of its own, so that one that dies takes no lock with it.

    put and get are those of the free and the full slots, as DistributedStorage.sample takes them. What a dead actor had
    not finished is given to another; it was never handed out as full.

    Args:
        actor: What runs in each.
        num_envs: Of each.
        num_actors: How many.
        num_slots: Of the storage.
        seed: The run's.
        session: How often the run has been started; a resumed run's environments do not repeat themselves.
        timeout: Seconds without a step after which an actor that has slots to fill counts as hung.
        max_restarts: How many deaths, hangs and errors are made good, in all.

    Raises:
        ConfigError: If the limit of open files does not suffice.
    """

    def __init__(
        self,
        actor: Actor,
        num_envs: int,
        num_actors: int,
        num_slots: int,
        seed: int,
        session: int,
        timeout: float,
        max_restarts: int,
    ) -> None:
        self._actor, self._num_envs = actor, num_envs
        self._seed, self._session, self._timeout = seed, session, timeout
        self._max_restarts = self._restarts_left = max_restarts
        self._check_files(num_actors)
        self._context = torch.multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([actor_module.__name__])
        self._lock = threading.Lock()  # of all that follows
        self._free = deque(range(num_slots))
        self._seats = [_Seat(index) for index in range(num_actors)]
        self._full: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._closing = False
        self._first_error = self._first_traceback = ""
        self.failure: WorkersLostError | None = None
        self._thread = threading.Thread(target=self._watch, name="actors", daemon=True)

    @staticmethod
    def _check_files(num_actors: int) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        open_now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
        needed = open_now + 8 * num_actors + 32
        if limit != resource.RLIM_INFINITY and needed > limit:
            raise ConfigError(
                f"agent.num_actors={num_actors} needs about {needed} open files and {limit} are allowed; raise "
                "`ulimit -n` or lower agent.num_actors"
            )

    def start(self) -> None:
        atexit.register(self.close)  # else the interpreter would wait for processes that wait for slots
        # The server that forks inherits the mask: a SIGTERM to the whole group is the trainer's to handle, and it still
        # needs its actors for a moment.
        multiprocessing.resource_tracker.ensure_running()  # which unblocks it when it starts
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for seat in self._seats:
            self._start(seat)
        self._thread.start()

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

    # -- the processes ----------------------------------------------------------------------------------------------

    def _start(self, seat: _Seat) -> None:
        here, there = self._context.Pipe()
        arguments = self._actor, self._seed, seat.index, (self._session, seat.lives), there
        process = self._context.Process(
            target=actor_module.main, args=arguments, name=f"actor-{seat.index}", daemon=True
        )
        for attempt in range(_START_ATTEMPTS):
            try:
                with _guarded_main():
                    process.start()
                break
            except (OSError, EOFError):  # the server that forks is dying; when it is dead another is started
                if attempt == _START_ATTEMPTS - 1:
                    raise
                time.sleep(0.1)
        there.close()
        with self._lock:
            seat.begin(process, here)
            self._feed()

    def _feed(self) -> None:
        """Hand out free slots in whole sets, first to actors that have none, then as the set after the present one."""
        for held in (0, self._num_envs):
            for seat in self._seats:
                if seat.alive and len(seat.slots) == held and len(self._free) >= self._num_envs:
                    slots = [self._free.popleft() for _ in range(self._num_envs)]
                    seat.slots += slots
                    with contextlib.suppress(OSError):  # it has died; the watch will notice
                        seat.connection.send(slots)

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as in start, for a server that is started here
        try:
            self._watch_seats()
        except Exception as error:  # nobody waits for ever because this thread is gone
            self._fail(f"the watch over the actors failed: {type(error).__name__}: {error}", error)

    def _fail(self, message: str, cause: BaseException) -> None:
        self.failure = WorkersLostError(message, self._first_traceback)
        self.failure.__cause__ = cause
        self._closing = True
        self._full.put(None)

    def _watch_seats(self) -> None:
        last = time.monotonic()
        while not self._closing:
            seats = [seat for seat in self._seats if seat.alive]
            ready = wait([part for seat in seats for part in (seat.connection, seat.process.sentinel)], _WATCH_SECONDS)
            # Time in which the trainer itself was stopped is held against no actor.
            passed, last = min(time.monotonic() - last, 2 * _WATCH_SECONDS), time.monotonic()
            for seat in seats:
                if self._closing:
                    return
                if seat.connection in ready or seat.process.sentinel in ready:
                    self._receive(seat)
                if seat.process.sentinel in ready:
                    self._lost(seat, f"died with exit code {seat.process.exitcode}")
                elif self._hangs(seat, passed):
                    seat.process.kill()
                    self._lost(seat, f"has not made a step for {self._timeout:g} s")

    def _receive(self, seat: _Seat) -> None:
        with contextlib.suppress(EOFError, OSError):
            while seat.connection.poll():
                message = seat.connection.recv()
                if isinstance(message, tuple):
                    seat.error, seat.traceback = message
                    continue
                with self._lock:
                    seat.slots.remove(message)
                    self._feed()
                self._full.put(message)

    def _hangs(self, seat: _Seat, passed: float) -> bool:
        steps = float(self._actor.stats[seat.index, HEARTBEAT])
        seat.silent = seat.silent + passed if seat.slots and steps == seat.steps else 0.0
        seat.steps = steps
        return seat.silent > self._timeout

    def _lost(self, seat: _Seat, what: str) -> None:
        """Take back what an actor had and start another in its place, while there is patience."""
        seat.process.join()
        with self._lock:
            seat.alive = False
            self._free.extend(seat.slots)
            seat.slots.clear()
        seat.connection.close()
        if self._closing:
            return
        error = f"actor {seat.index}: {seat.error}" if seat.error else f"actor {seat.index} {what}"
        self._first_error = self._first_error or error
        self._first_traceback = self._first_traceback or seat.traceback
        if self._restarts_left == 0:
            message = f"more actors were lost than agent.max_restarts={self._max_restarts} makes good; the first error "
            self._fail(f"{message}was: {self._first_error}", RuntimeError(self._first_traceback or self._first_error))
            return
        self._restarts_left -= 1
        if seat.traceback:
            log_to_file(f"actor {seat.index}:\n{seat.traceback}")
        actor_module.log.warning("%s; it is started again, and %d restarts are left", error, self._restarts_left)
        self._start(seat)

    def close(self) -> None:
        """End the actors; one that does not answer is killed."""
        self._closing = True
        self._full.put(None)
        if self._thread.is_alive():
            self._thread.join()
        seats = [seat for seat in self._seats if seat.alive]
        for seat in seats:
            with contextlib.suppress(OSError):
                seat.connection.send([None])
        deadline = time.monotonic() + 1.0
        for seat in seats:
            # It fills its slots before it looks for more, which may take long and is of no use now.
            seat.process.join(max(0.0, deadline - time.monotonic()))
            seat.process.kill()
            seat.process.join()
            seat.connection.close()
            seat.alive = False
        atexit.unregister(self.close)


class _Seat:
    """The place of one actor, whichever process sits there."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.lives = 0
        self.alive = False
        self.slots: list[int] = []

    def begin(self, process: Any, connection: Any) -> None:
        self.process, self.connection = process, connection
        self.lives += 1
        self.alive = True
        self.error = self.traceback = ""
        self.steps, self.silent = -1.0, 0.0


@contextlib.contextmanager
def _guarded_main() -> Iterator[None]:
    """The context in which a process starts.

    Python imports the program's main script in each process. One without a __main__ guard would begin to train there,
    so it is hidden; what an actor needs of it comes by value.
    """
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path and os.path.isfile(path) and "__main__" not in Path(path).read_text(errors="replace"):
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
