"""Actors in processes of the learner's machine: started, fed with free slots, watched, started again, ended."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import resource
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hsw.agent import actor_process
from hsw.agent.actor import HEARTBEAT, WAITING
from hsw.agent.seats import Crew, Seat, Seats
from hsw.errors import ConfigError

_WATCH_SECONDS = 1.0
_START_ATTEMPTS = 30


class ProcessPool(Seats["_Seat"]):
    """Actors in processes of their own, each behind a pipe of its own, so that one that dies takes no lock with it.

    Rollouts and weights are in memory that all of them share.

    Args:
        crew: What is to run.

    Raises:
        ConfigError: If the limit of open files does not suffice.
    """

    def __init__(self, crew: Crew) -> None:
        super().__init__(crew, [_Seat(index) for index in range(crew.num_actors)])
        self._check_files(crew.num_actors)
        self._context = torch.multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([actor_process.__name__])
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

    def publish(self) -> None:
        """Nothing: actors see the weights that are published."""

    def statistics(self) -> dict[str, float]:
        """See hsw.agent.protocols.Pool."""
        stats = self.crew.actor.stats
        return {
            "rows": float(stats[:, HEARTBEAT].sum()),
            "waited": float(stats[:, WAITING].sum()),
            "actors": float(sum(seat.alive for seat in self._seats)),
            "restarts": float(self.restarts),
        }

    # -- the processes ----------------------------------------------------------------------------------------------

    def _start(self, seat: _Seat) -> None:
        here, there = self._context.Pipe()
        crew = self.crew
        arguments = crew.actor, crew.seed, seat.index, (crew.session, seat.lives), there
        process = self._context.Process(
            target=actor_process.main, args=arguments, name=f"actor-{seat.index}", daemon=True
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

    def _hand(self, seat: _Seat, slots: list[int]) -> None:
        with contextlib.suppress(OSError):  # it has died; the watch will notice
            seat.connection.send(slots)

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as in start, for a server that is started here
        try:
            self._watch_seats()
        except Exception as error:  # nobody waits for ever because this thread is gone
            self._watch_failed(error)

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
                    self._lost(seat, f"has not made a step for {self.crew.timeout:g} s")

    def _receive(self, seat: _Seat) -> None:
        with contextlib.suppress(EOFError, OSError):
            while seat.connection.poll():
                message = seat.connection.recv()
                if isinstance(message, tuple):
                    seat.error, seat.traceback = message
                    continue
                self._filled(seat, [message])

    def _hangs(self, seat: _Seat, passed: float) -> bool:
        steps = float(self.crew.actor.stats[seat.index, HEARTBEAT])
        seat.silent = seat.silent + passed if seat.slots and steps == seat.steps else 0.0
        seat.steps = steps
        return seat.silent > self.crew.timeout

    def _lost(self, seat: _Seat, what: str) -> None:
        """Take back what an actor had and start another in its place, while there is patience."""
        seat.process.join()
        self._take_back(seat)
        seat.connection.close()
        if not self._closing and self._makes_good(seat, what):
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


class _Seat(Seat):
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
