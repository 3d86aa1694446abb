"""The actors' side of the distributed loop: a pool that fills slots, threads that load batches, weights that go out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hsw.agent.actor import Actor
from hsw.agent.loading import BatchLoader
from hsw.agent.protocols import ActorMemory, ActorPolicy, Pool, require
from hsw.agent.publication import SharedWeights
from hsw.agent.seats import Crew, PoolClosed
from hsw.env import VectorEnv
from hsw.errors import ConfigError


class Actors:
    """What a learner knows of its actors.

    Args:
        policy: The learner's.
        make_env: make_env(seed=...) builds an actor's environments.
        storage: Its slots are what actors fill and batches are loaded from.
        num_actors: How many.
        num_learners: Threads that load batches.

    Attributes:
        session: How often they have been begun, over all of a run's resumes.

    Raises:
        ConfigError: If the policy cannot act from slots, or cannot reach other processes.
    """

    def __init__(
        self,
        policy: ActorPolicy,
        make_env: Callable[..., VectorEnv],
        storage: ActorMemory,
        num_actors: int,
        num_learners: int,
    ) -> None:
        memory: Any = policy.initial_memory(1)
        if memory is None:
            raise ConfigError(f"{type(policy).__name__} has no memory of last actions; take a RecurrentActorCritic")
        storage.init_tensors({"init_actor_states": memory.core})
        self.session = 0
        self._policy, self._storage = policy, storage
        self._num_actors, self._num_learners = num_actors, num_learners
        self.weights = SharedWeights(policy)
        self.actor = Actor(policy, make_env, storage, self.weights, num_actors)
        self.pool: Pool | None = None
        self._loader: BatchLoader | None = None
        self._logged = 0.0
        self._before: dict[str, float] = {}

    @property
    def running(self) -> bool:
        return self.pool is not None

    @property
    def version(self) -> int:
        """Of the weights that were published last."""
        return self.weights.version

    def run(self, env: VectorEnv, actor_idx: int, free_queue: Any, full_queue: Any) -> None:
        """Be an actor in this process, see Actor.run."""
        if self.version == 0:
            self.weights.publish(self._policy)
        self.actor.run(env, actor_idx, free_queue, full_queue)

    def begin(
        self,
        make_pool: Callable[[Crew], Pool],
        num_envs: int,
        device: Any,
        seed: int,
        timeout: float,
        max_restarts: int,
    ) -> None:
        """Publish the weights, start a pool, and load batches of what it fills.

        Args:
            make_pool: What the pool is made by.
            num_envs: Of each actor.
            device: Where batches go.
            seed, timeout, max_restarts: See Crew.

        Raises:
            ConfigError: If the pool cannot work so.
        """
        self.weights.publish(self._policy)
        storage = self._storage
        num_slots = storage.num_storages
        crew = Crew(self.actor, num_envs, self._num_actors, num_slots, seed, self.session, timeout, max_restarts)
        pool = make_pool(crew)
        require(pool, Pool, "pool")
        self.pool = pool
        self.session += 1
        load = lambda: storage.sample(
            device, storage.batch_size, pool, pool, storage.storages, storage.init_actor_state_storages
        )
        self._loader = loader = BatchLoader(load, self._num_learners)
        self._logged, self._before = time.monotonic(), dict(pool.statistics())
        pool.start()
        loader.start()

    def end(self) -> None:
        """End what begin has started."""
        if self.pool is None or self._loader is None:
            return
        self._loader.stop()
        self.pool.close()
        self._loader.join()
        self.pool = self._loader = None

    def publish(self) -> None:
        """Make the policy's weights the next version.

        Raises:
            NonFiniteError: If they hold NaN or infinite numbers.
        """
        self.weights.publish(self._policy)
        if self.pool is not None:
            self.pool.publish()

    def next_batch(self, check: Callable[[], None]) -> Any:
        """Wait for a batch; check is called meanwhile.

        Raises:
            WorkersLostError: If there will be none.
        """
        assert self._loader is not None
        batch = self._loader.get(check)
        if isinstance(batch, Exception):
            check()  # a signal to the whole group may have taken the actors
        if isinstance(batch, PoolClosed) and self.pool is not None and self.pool.failure is not None:
            raise self.pool.failure
        if isinstance(batch, Exception):
            raise batch
        return batch

    def figures(self) -> dict[str, float]:
        """Who has waited for whom since the last call, and how the pool is, to log."""
        assert self._loader is not None
        assert self.pool is not None
        now, statistics = time.monotonic(), dict(self.pool.statistics())
        seconds = now - self._logged
        figures = {
            "speed/learner_idle": self._loader.waited / seconds,
            "speed/actors_idle": self._rate("waited", statistics, seconds) / self._num_actors,
            **{f"pool/{name}": self._rate(name, statistics, seconds) for name in statistics if name != "waited"},
        }
        self._loader.waited, self._logged, self._before = 0.0, now, statistics
        return figures

    def _rate(self, name: str, statistics: dict[str, float], seconds: float) -> float:
        """What is counted of actors as it is, and what grows by the second."""
        if name in ("actors", "restarts"):
            return statistics[name]
        return (statistics[name] - self._before.get(name, 0.0)) / seconds
