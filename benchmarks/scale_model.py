"""How fast actors and a learner go together, by formulas.

Times are CPU seconds of one core. A set is what an actor fills at once: a rollout of each of its environments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """A cost of n things: fixed + each * n."""

    fixed: float
    each: float = 0.0

    def __call__(self, n: float) -> float:
        return self.fixed + self.each * n


@dataclass(frozen=True)
class Costs:
    """What was measured of a workload on one core, in seconds and bytes.

    Attributes:
        env, act, store: Of a row: stepping E environments, choosing their actions, writing them. Of E.
        fetch: Copying the newest weights, once a set.
        take: Copying a batch of B rollouts out of their slots. Of B.
        update: Of B rollouts.
        publish: Making weights the next version.
        receive, put: The pool's share of a rollout that is full, and of one that is free. Of the number of actors.
        look: The pool's look at all its actors, for all of them that have something to tell. Of their number.
        rollout_bytes, weight_bytes: Of one rollout, and of all weights.
        valid: Share of rows that are steps; the others are resets.
    """

    env: Line
    act: Line
    store: Line
    fetch: float
    take: Line
    update: Line
    publish: float
    receive: Line
    put: Line
    look: Line
    rollout_bytes: float
    weight_bytes: float
    valid: float

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Costs:
        """From what JSON keeps."""
        return cls(**{name: Line(**value) if isinstance(value, dict) else value for name, value in plain.items()})


@dataclass(frozen=True)
class Setup:
    """Machines and settings.

    Attributes:
        actors, envs: A, and E of each.
        num_steps, batch_size, slots: T, B, and the storage's slots.
        cores: Of a machine.
        actors_a_machine: None puts all of them beside the learner, in shared memory.
        bandwidth: Bytes a second, of the learner's machine to each side.
        latency: Seconds of a message of the network, whatever its size.
        background: Others that want a core of the machine: tasks, or sessions where grouped.
        grouped: The system shares its cores among sessions, whatever number of tasks each has (Linux's autogroup).
    """

    actors: int
    envs: int
    num_steps: int
    batch_size: int
    slots: int
    cores: float
    actors_a_machine: int | None = None
    bandwidth: float = math.inf
    latency: float = 0.0
    background: float = 0.0
    grouped: bool = False

    @property
    def machines(self) -> int:
        """Beside the learner's."""
        return -(-self.actors // self.actors_a_machine) if self.actors_a_machine else 0


def set_time(costs: Costs, setup: Setup) -> float:
    """t_set = T (env(E) + act(E) + store(E)) + fetch."""
    row = costs.env(setup.envs) + costs.act(setup.envs) + costs.store(setup.envs)
    return setup.num_steps * row + costs.fetch


def limits(costs: Costs, setup: Setup) -> dict[str, float]:
    """Steps per second that each part could do if all the others were free; the least of them is the forecast."""
    steps, batch, actors = setup.num_steps * costs.valid, setup.batch_size, setup.actors
    pool = costs.receive(actors) + costs.look(actors) / (actors * setup.envs)  # at best all have a set to tell of
    load = costs.take(batch) + batch * costs.put(actors)
    learn = costs.update(batch) + costs.publish
    found = {
        "actors": actors * setup.envs * steps / set_time(costs, setup),
        "learner": batch * steps / learn,
        "loader": batch * steps / load,
        "pool": steps / pool,
    }
    beside = set_time(costs, setup) / setup.envs if not setup.machines else 0.0
    tasks = 3 + (0 if setup.machines else actors)  # of them the learner, the loader and the pool
    parts = 1.0 if setup.grouped else tasks
    share = min(setup.cores, tasks, setup.cores * parts / (parts + setup.background))
    found["cores"] = share * steps / (beside + (load + learn) / batch + pool)
    if setup.machines:
        found["network in"] = setup.bandwidth * steps / costs.rollout_bytes
    return found


def weights_delay(costs: Costs, setup: Setup) -> float:
    """Seconds until every machine has new weights; while they are sent, no newer ones are."""
    return setup.machines * costs.weight_bytes / setup.bandwidth + setup.latency * (setup.machines > 0)
