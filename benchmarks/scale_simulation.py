"""A small discrete-event simulation of what the formulas leave out: queues, turns, shares of cores, staleness."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.scale_model import Costs, Setup, set_time, weights_delay


class Shared:
    """A resource that its tasks share alike: a machine's cores, or a link. Each task gets at most one unit."""

    def __init__(self, world: World, units: float, background: float = 0.0, grouped: bool = False) -> None:
        self.world, self.units, self.background = world, units / (1 + background * grouped), background * (not grouped)
        self._served = self._since = self.busy = 0.0  # what each task that was here all along has got; until when
        self._tasks: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0  # of the plans for a next end only the newest counts

    def _rate(self) -> float:
        return min(1.0, self.units / (len(self._tasks) + self.background)) if self._tasks else 0.0

    def _advance(self) -> None:
        passed = self.world.now - self._since
        self._served += passed * self._rate()
        self.busy += passed * self._rate() * len(self._tasks)
        self._since = self.world.now

    def run(self, work: float, then: Callable[[], None]) -> None:
        """Do so much, and go on."""
        self._advance()
        heapq.heappush(self._tasks, (self._served + work, self.world.number(), then))
        self._plan()

    def _plan(self) -> None:
        self._planned += 1
        if self._tasks:
            left = max(0.0, self._tasks[0][0] - self._served) / self._rate()
            self.world.after(left, lambda plan=self._planned: self._ends(plan))  # type: ignore[misc]

    def _ends(self, plan: int) -> None:
        if plan != self._planned:
            return
        self._advance()
        _, _, then = heapq.heappop(self._tasks)
        self._plan()
        then()


class World:
    """Time, and what comes next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._next: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def number(self) -> int:
        self._count += 1
        return self._count

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._next, (self.now + seconds, self.number(), then))

    def run(self, until: float) -> None:
        while self._next and self._next[0][0] <= until:
            self.now, _, then = heapq.heappop(self._next)
            then()
        self.now = until


@dataclass
class Worker:
    """An actor: how many sets it holds, and whether it fills one."""

    machine: Shared
    sets: int = 0
    filling: bool = False
    idle_since: float = 0.0
    version: int = 0


@dataclass
class Simulation:
    """Actors, a network, slots, a pool, a loader and a learner, each as hsw has it.

    An actor fills a set and holds one more; the pool hands out free slots in whole sets; the loader copies a batch as
    soon as there is one, frees its slots and keeps at most one batch ahead beside the one in its hands.
    """

    costs: Costs
    setup: Setup
    world: World = field(default_factory=World)
    full: deque[int] = field(default_factory=deque)  # the version that filled each rollout
    loaded: deque[tuple[int, ...]] = field(default_factory=deque)
    inbox: deque[int] = field(default_factory=deque)
    version: int = 0
    updates: int = 0
    lag: float = 0.0
    actors_idle: float = 0.0
    learner_idle: float = 0.0

    def __post_init__(self) -> None:
        setup = self.setup
        cores = setup.cores, setup.background, setup.grouped
        self.home = Shared(self.world, *cores)
        self.inward = Shared(self.world, 1.0)
        machines = [Shared(self.world, *cores) for _ in range(setup.machines)] or [self.home]
        self.workers = [Worker(machines[index % len(machines)]) for index in range(setup.actors)]
        self.free = setup.slots
        self.loading = self.learning = self.receiving = self.sending = False
        self.waits_since = 0.0

    def run(self, seconds: float, warm_up: float) -> dict[str, float]:
        """Steps per second and shares, after a warm-up."""
        self._feed()
        self.world.run(warm_up)
        self.lag = self.actors_idle = self.learner_idle = 0.0
        self.waits_since = self.world.now
        for worker in self.workers:
            worker.idle_since = self.world.now
        updates, busy = self.updates, self.inward.busy
        self.world.run(warm_up + seconds)
        done = self.updates - updates
        idle = self.actors_idle + sum(self.world.now - w.idle_since for w in self.workers if not w.filling)
        waited = self.learner_idle + (0.0 if self.learning else self.world.now - self.waits_since)
        return {
            "steps_per_second": done * self.setup.batch_size * self.setup.num_steps * self.costs.valid / seconds,
            "learner_idle": waited / seconds,
            "actors_idle": idle / (seconds * self.setup.actors),
            "policy_lag": self.lag / done if done else math.nan,
            "network": (self.inward.busy - busy) / seconds,
        }

    def _feed(self) -> None:
        for held in (0, 1):
            for worker in self.workers:
                if self.free < self.setup.envs:
                    return
                if worker.sets == held:
                    self.free -= self.setup.envs
                    worker.sets += 1
                    if not worker.filling:
                        self._fill(worker)

    def _fill(self, worker: Worker) -> None:
        self.actors_idle += self.world.now - worker.idle_since
        worker.filling, worker.version = True, self.version
        worker.machine.run(set_time(self.costs, self.setup), lambda: self._filled(worker))

    def _filled(self, worker: Worker) -> None:
        worker.filling, worker.idle_since = False, self.world.now
        worker.sets -= 1
        version = worker.version
        if worker.sets:
            self._fill(worker)
        if not self.setup.machines:
            self._receive(version)
            return
        size = self.setup.envs * self.costs.rollout_bytes / self.setup.bandwidth
        self.world.after(self.setup.latency, lambda: self.inward.run(size, lambda: self._receive(version)))

    def _receive(self, version: int) -> None:
        self.inbox.append(version)
        if not self.receiving:
            self._take_message()

    def _take_message(self) -> None:
        self.receiving = bool(self.inbox)
        if self.receiving:
            arrived, actors = list(self.inbox), self.setup.actors
            self.inbox.clear()
            cost = self.costs.look(actors) + len(arrived) * self.setup.envs * self.costs.receive(actors)
            self.home.run(cost, lambda: self._received(arrived))

    def _received(self, arrived: list[int]) -> None:
        for version in arrived:
            self.full.extend([version] * self.setup.envs)
        self._feed()
        self._load()
        self._take_message()

    def _load(self) -> None:
        batch = self.setup.batch_size
        if not self.loading and len(self.full) >= batch and len(self.loaded) < 2:
            self.loading = True
            versions = tuple(self.full.popleft() for _ in range(batch))
            cost = self.costs.take(batch) + batch * self.costs.put(self.setup.actors)
            self.home.run(cost, lambda: self._took(versions))

    def _took(self, versions: tuple[int, ...]) -> None:
        self.loading = False
        self.free += len(versions)
        self.loaded.append(versions)
        self._feed()
        self._learn()
        self._load()

    def _learn(self) -> None:
        if self.learning or not self.loaded:
            return
        versions = self.loaded.popleft()
        self.learning = True
        self.learner_idle += self.world.now - self.waits_since
        self.lag += self.updates - sum(versions) / len(versions)
        cost = self.costs.update(self.setup.batch_size) + self.costs.publish
        self.home.run(cost, self._learnt)
        self._load()

    def _learnt(self) -> None:
        self.learning, self.waits_since = False, self.world.now
        self.updates += 1
        self._publish()
        self._learn()

    def _publish(self) -> None:
        if not self.setup.machines:
            self.version = self.updates
        elif not self.sending and self.version < self.updates:
            self.sending, sent = True, self.updates
            self.world.after(weights_delay(self.costs, self.setup), lambda: self._arrive(sent))

    def _arrive(self, version: int) -> None:
        self.sending, self.version = False, version
        self._publish()
