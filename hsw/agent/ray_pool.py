"""Actors on a Ray cluster: placed, called, watched, replaced, ended. Ray is imported when a pool is made."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

from hsw.agent.actor import log
from hsw.agent.ray_actor import PULSE, RayActor, Reply, take_over
from hsw.agent.ray_cluster import RayCluster, import_ray, shipped, within
from hsw.agent.ray_places import Places
from hsw.agent.seats import Crew, Seat, Seats
from hsw.bounds import Range
from hsw.errors import WorkersLostError
from hsw.spaces import leaves

_WAIT_SECONDS = 0.02  # for an answer, before other things are looked after
_NEVER = 100_000  # seconds: a learner whose cluster is gone ends as this pool says, and not by Ray's abort
_PAUSE = 1.0  # seconds until the object store is tried again, or an actor that was out of reach


class RayPool(Seats["_Seat"]):
    """Actors on the nodes of a Ray cluster; rollouts come as NumPy arrays, and weights go as one.

    An actor has at most two calls outstanding, one for each set of slots that it holds. Restarts are this pool's: Ray's
    own would repeat the seeds. All that is said to Ray after the start is said by one thread.

    Args:
        crew: What is to run.
        address: auto (RAY_ADDRESS, else the cluster that `ray start` has started on this machine, else local), local (a
            cluster of this run's own, on this machine), or host:port of a cluster's head.
        num_cpus_per_actor: What Ray reserves for each.
        start_timeout: Seconds to wait for a place: for every actor at the start, and later where none has one.
        grace: Seconds in which an actor that is out of reach may come back.
        packages: Whose code goes to the workers beside hsw's, where it is not installed.

    Raises:
        ConfigError: If Ray is not installed.
    """

    def __init__(
        self,
        crew: Crew,
        address: str = "auto",
        num_cpus_per_actor: Annotated[float, Range(0, open_low=True)] = 1.0,
        start_timeout: Annotated[float, Range(0, open_low=True)] = 180.0,
        grace: Annotated[float, Range(0)] = 10.0,
        packages: Sequence[str] = (),
    ) -> None:
        super().__init__(crew, [_Seat(index) for index in range(crew.num_actors)])
        import_ray()
        self._address, self._packages = address, packages
        self._num_cpus, self._start_timeout, self._grace = num_cpus_per_actor, start_timeout, grace
        self._cluster: RayCluster | None = None
        self._wake = threading.Event()  # there is something to do that Ray does not tell of
        self._thread = threading.Thread(target=self._watch, name="actors", daemon=True)
        self._refs: deque[tuple[int, Any]] = deque(maxlen=2)  # versions, and where their weights are
        self._totals = {"rows": 0.0, "waited": 0.0, "receiving": 0.0, "writing": 0.0, "publishing": 0.0}
        self._full_store = False

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse what cannot work, from the plain config alone.

        Raises:
            ConfigError: If Ray is not installed.
        """
        import_ray()

    # -- the pool's face --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and let actors be placed.

        Raises:
            ConfigError: If there is no cluster to connect to.
        """
        crew = self.crew
        rollout = sum(part[0].numel() * part.element_size() for part in leaves(crew.actor.storage.storages))
        store_bytes = 6 * crew.num_actors * crew.num_envs * rollout + 4 * crew.actor.weights.num_bytes
        num_cpus = crew.num_actors * self._num_cpus
        self._cluster = RayCluster(
            self._address,
            "pool.address",
            shipped(self._packages),
            abort_seconds=_NEVER,
            num_cpus=num_cpus,
            object_store_memory=store_bytes,
        )
        log.info("actors run on %s", self._cluster.name)
        self._ray = self._cluster.ray
        self._errors = self._ray.exceptions
        self._recipe = self._ray.put(crew.actor.elsewhere(crew.num_envs))
        self._kind = self._ray.remote(RayActor)
        self._thread.start()

    def put(self, slot: int) -> None:
        super().put(slot)
        self._wake.set()

    def publish(self) -> None:
        """Nothing yet: the newest weights go out with the next call."""

    def statistics(self) -> dict[str, float]:
        """See hsw.agent.protocols.Pool; receiving, writing and publishing are the pool's seconds with Ray and slots."""
        actors = float(sum(seat.alive for seat in self._seats))
        return {**self._totals, "actors": actors, "restarts": float(self.restarts)}

    def close(self) -> None:
        """End the actors, and a cluster of this run's own."""
        self._closing = True
        self._full.put(None)
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(self._grace + 5.0)
        if self._cluster is not None:
            within(self._grace, self._kill_all)
            self._refs.clear()
            self._cluster.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            assert self._cluster is not None
            places = Places(self._cluster, len(self._seats), self._num_cpus, self._start_timeout)
            for seat in self._seats:
                self._place(seat)
            last = time.monotonic()
            while not self._closing:
                self._receive()
                # Time in which the trainer itself was stopped is held against nobody.
                passed, last = min(time.monotonic() - last, 2.0), time.monotonic()
                for seat in self._seats:
                    if not self._closing:
                        self._look_after(seat, passed)
                if not self._closing and (lack := places.look(sum(not seat.alive for seat in self._seats))):
                    told = f"; the first error was: {self._first_error}" if self._first_error else ""
                    self._fail(WorkersLostError(lack + told, self._first_traceback))
        except Exception as error:  # nobody waits for ever because this thread is gone
            self._watch_failed(error)

    def _receive(self) -> None:
        """Wait for answers, for a moment, and deal with them."""
        refs = [ref for seat in self._seats for ref in seat.refs()]
        self._wake.clear()
        if not refs:
            self._wake.wait(_WAIT_SECONDS)
            return
        begin = time.monotonic()
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(refs, num_returns=1, timeout=_WAIT_SECONDS)
            begin = time.monotonic()
        arrived = set(ready)
        for seat in self._seats:
            if seat.asked in arrived:
                self._answered(seat)
            while seat.calls and seat.calls[0] in arrived and not self._closing:
                self._take(seat, seat.calls.popleft())
        self._totals["receiving"] += time.monotonic() - begin

    def _take(self, seat: _Seat, ref: Any) -> None:
        """What a call of this seat's actor has brought."""
        reply = self._value(seat, ref)
        if reply is None or reply.life != seat.lives:  # what is left of an actor that was given up
            return
        seat.silent = 0.0
        seat.error, seat.traceback = reply.error or ("", "")
        if reply.error:
            self._lost(seat, "failed")
            return
        self._totals["rows"] += reply.rows
        self._totals["waited"] += reply.waited
        if reply.rollouts is not None:
            begin = time.monotonic()
            slots = seat.slots[: self.crew.num_envs]
            take_over(self.crew.actor.storage, slots, reply.rollouts)
            self._totals["writing"] += time.monotonic() - begin
            self._filled(seat, slots)

    def _value(self, seat: _Seat, ref: Any) -> Reply | None:
        """What an answer holds; None if it is an error, which is dealt with."""
        errors = self._errors
        try:
            value: Reply = self._ray.get(ref, timeout=self._grace + 1.0)
            return value
        except Exception as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, errors.ObjectStoreFullError | errors.OutOfDiskError):
                self._store_is_full(cause)
            elif isinstance(error, errors.ActorDiedError | errors.RuntimeEnvSetupError):
                self._lost(seat, f"died: {_reason(error)}")
            elif isinstance(error, errors.RayTaskError):
                self._lost(seat, f"failed: {_reason(cause)}")
            else:  # the actor, its node or its rollouts are out of reach; it is asked which
                seat.calls.clear()
                seat.away = seat.away or time.monotonic()
        return None

    def _answered(self, seat: _Seat) -> None:
        """An actor says that it is there, as it was asked, or does not."""
        ref, seat.asked = seat.asked, None
        if self._value(seat, ref) is None:
            return
        seat.away, seat.silent = 0.0, 0.0
        if not seat.alive:
            log.debug("actor %d has a place", seat.index)
            with self._lock:
                seat.alive = True
                self._feed()

    def _look_after(self, seat: _Seat, passed: float) -> None:
        now = time.monotonic()
        if seat.away:
            if now - seat.away > self._grace:
                self._lost(seat, f"has been out of reach for {self._grace:g} s")
            elif seat.asked is None and now > seat.again:
                seat.asked, seat.again = seat.handle.here.remote(), now + _PAUSE
            return
        if seat.calls:
            seat.silent += passed
            if seat.silent > self.crew.timeout + PULSE:
                self._lost(seat, f"has not made a step for {self.crew.timeout:g} s")
                return
        if seat.alive and now > seat.again:
            self._call(seat)

    def _call(self, seat: _Seat) -> None:
        """Have the actor fill the sets of slots that it holds."""
        missing = len(seat.slots) // self.crew.num_envs - len(seat.calls)
        if missing > 0 and (weights := self._weights()):
            seat.silent = 0.0 if not seat.calls else seat.silent
            seat.calls += [seat.handle.collect.remote(*weights) for _ in range(missing)]

    def _hand(self, seat: _Seat, slots: list[int]) -> None:
        """Nothing: the watch sees who holds slots."""

    def _weights(self) -> tuple[int, Any] | None:
        """The newest version, and where its weights are; None if they found no room."""
        if not self._refs or self._refs[-1][0] != self.crew.actor.weights.version:
            begin = time.monotonic()
            version, flat = self.crew.actor.weights.flat()
            try:
                self._refs.append((version, self._ray.put(flat)))
                self._full_store = False
            except (self._errors.ObjectStoreFullError, self._errors.OutOfDiskError) as error:
                self._store_is_full(error)
            self._totals["publishing"] += time.monotonic() - begin
        return self._refs[-1] if self._refs else None

    def _store_is_full(self, error: BaseException) -> None:
        if not self._full_store:
            log.warning("Ray's object store is full (%s); actors wait until there is room", _reason(error))
        self._full_store = True
        for seat in self._seats:
            seat.again = time.monotonic() + _PAUSE

    # -- places -----------------------------------------------------------------------------------------------------

    def _place(self, seat: _Seat) -> None:
        """Ask for a place for a new actor."""
        life = self.crew.session, seat.lives + 1
        options = {"num_cpus": self._num_cpus, "max_restarts": 0, "max_task_retries": 0}
        kind = self._kind.options(**options, scheduling_strategy="SPREAD")
        seat.begin(kind.remote(self._recipe, self.crew.seed, seat.index, life))
        seat.asked = seat.handle.here.remote()

    def _lost(self, seat: _Seat, what: str) -> None:
        """Take back what an actor had and ask for another, while there is patience."""
        self._kill(seat)
        self._take_back(seat)
        with self._lock:
            self._feed()  # others may have it before the new one is there
        if not self._closing and self._makes_good(seat, what):
            self._place(seat)

    def _kill(self, seat: _Seat) -> None:
        seat.calls.clear()
        seat.asked = None
        if seat.handle is not None:
            with contextlib.suppress(Exception):  # it may be gone, and so may the cluster
                self._ray.kill(seat.handle, no_restart=True)
        seat.handle = None

    def _kill_all(self) -> None:
        for seat in self._seats:
            self._kill(seat)


class _Seat(Seat):
    """The place of one actor of Ray's.

    Attributes:
        handle: Ray's, of the actor.
        calls: The collecting that is under way, in order.
        asked: Whether the actor is there, if that is asked.
        away: Since when it is out of reach; 0 if it is not.
        again: Until when it is left alone.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.handle: Any = None
        self.asked: Any = None
        self.calls: deque[Any] = deque()
        self.away = self.again = 0.0

    def begin(self, handle: Any) -> None:
        self.handle = handle
        self.lives += 1
        self.error = self.traceback = ""
        self.silent = self.away = self.again = 0.0

    def refs(self) -> list[Any]:
        return [*self.calls, *([self.asked] if self.asked is not None else [])]


def _reason(error: BaseException) -> str:
    """The last line of what Ray says, which tells why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
