"""The distributed loop: actors collect in processes of their own, learner threads load, one learner updates."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from hsw.agent.actor import WAITING, Actor, SharedWeights
from hsw.agent.base import Agent, load_policy
from hsw.agent.impala_defaults import algorithm_of, check_names, policy_of, read_weights
from hsw.agent.pool import ActorPool, PoolClosed
from hsw.algorithm import Algorithm
from hsw.bounds import Range
from hsw.env import VectorEnv, remaker, vector_of
from hsw.errors import ConfigError
from hsw.network import Policy
from hsw.run.folder import write_whole
from hsw.run.services import Every, Run
from hsw.seeding import ENV, EVAL_ENV, derive_seed
from hsw.storage import DistributedStorage

log = logging.getLogger("hsw")


class _Default(int):
    """A number that is told from the same number given by a caller."""


DEFAULT_BUDGET = _Default(30_000_000)


class DistributedAgent(Agent):
    """Actors and a learner on one machine (IMPALA, Espeholt et al. 2018, arXiv:1802.01561).

    Args:
        env: What the actors build anew: a gymnasium.Env with a spec, a function that makes one, or a VectorEnv of
            make_env, which is then each actor's vector of environments.
        eval_env: As in Agent; None evaluates in env's own kind, with other seeds.
        tag, seed, device: As in Agent. Actors act on the CPU, and learning is on the device.
        num_steps: T, of the storage.
        num_actors: Processes.
        num_learners: Threads that load batches; updates come one after another.
        num_storages: Slots of the storage.
        policy, algorithm, storage: What is trained, how, and from what; None takes IMPALA's, made of `recipe`.
        actor_timeout: Seconds without a step after which an actor counts as hung.
        max_restarts: How many actors' deaths are made good, in all.
        log_interval: Steps between logged rows.
        pretraining: Train on intrinsic_reward, and save what init_model_path reads.
        intrinsic_reward: intrinsic_reward(batch) gives [T, B] rewards in place of the environment's.
        eval_interval, eval_episodes, eval_deterministic, run: As in Agent.
        recipe: num_envs (of each actor), batch_size, hidden_dim, discount, and any argument of IMPALA and of
            RecurrentActorCritic.

    Raises:
        ConfigError: If the actors could not work so.
        TypeError: If the recipe has an unknown name.
    """

    storage_type: ClassVar[type] = DistributedStorage
    storage: DistributedStorage

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse settings that cannot work together, from the plain config alone.

        Raises:
            ConfigError: If slots do not suffice, or actors would each have statistics of their own.
        """
        for key in ("normalize_obs", "normalize_reward"):
            if config["env"].get(key):
                raise ConfigError(f"env.{key}=true would give each actor statistics of its own; set it to false")
        if config["env"].get("backend") == "async":
            raise ConfigError("env.backend=async would start processes in each actor, which is one; take sync")
        storage, agent = config["storage"], config["agent"]
        for key in ("num_steps", "num_storages"):
            if agent.get(key, storage.get(key)) != storage.get(key):
                raise ConfigError(f"agent.{key} must be storage.{key}; leave it to its interpolation")
        _check_slots(config["env"]["num_envs"], storage.get("num_storages", 80), storage.get("batch_size", 32))

    def __init__(
        self,
        env: Any,
        eval_env: VectorEnv | Callable[[], VectorEnv] | None = None,
        tag: str = "default",
        seed: int = 1,
        device: str = "cpu",
        num_steps: Annotated[int, Range(1)] = 80,
        num_actors: Annotated[int, Range(1)] = 45,
        num_learners: Annotated[int, Range(1)] = 4,
        num_storages: Annotated[int, Range(1)] = 60,
        *,
        policy: Policy | None = None,
        algorithm: Algorithm | None = None,
        storage: DistributedStorage | None = None,
        actor_timeout: Annotated[float, Range(0, open_low=True)] = 60.0,
        max_restarts: Annotated[int, Range(0)] = 10,
        log_interval: Annotated[int, Range(1)] = 10_000,
        pretraining: bool = False,
        intrinsic_reward: Callable[..., Any] | None = None,
        eval_interval: Annotated[int | None, Range(1)] = None,
        eval_episodes: Annotated[int, Range(1)] = 20,
        eval_deterministic: bool = True,
        run: Run | None = None,
        **recipe: Any,
    ) -> None:
        if pretraining and intrinsic_reward is None:
            raise ConfigError("pretraining=True needs intrinsic_reward")
        check_names(recipe)
        batch_size = storage.batch_size if storage else recipe.pop("batch_size", 32)
        num_envs = recipe.pop("num_envs", max(1, min(16, (num_storages - batch_size) // num_actors)))
        self._make_env = remaker(env, num_envs)
        vector = env if isinstance(env, VectorEnv) else self._make_env(seed=seed)
        spaces = vector.observation_space, vector.action_space
        policy = policy or policy_of(spaces, recipe)
        algorithm = algorithm or algorithm_of(policy, recipe)
        storage = storage or DistributedStorage(*spaces, str(device), num_steps, num_storages, batch_size)
        _check_slots(vector.num_envs, storage.num_storages, storage.batch_size)
        super().__init__(
            vector,
            eval_env or partial(self._make_env, seed=derive_seed(seed, EVAL_ENV), training=False),
            tag,
            seed,
            device,
            policy=policy,
            algorithm=algorithm,
            storage=storage,
            eval_interval=eval_interval,
            eval_episodes=eval_episodes,
            eval_deterministic=eval_deterministic,
            run=run,
        )
        vector.close()  # it has told its spaces; the actors build their own
        self.num_actors, self.num_learners = num_actors, num_learners
        self.every_log = Every(log_interval)
        self.actor_timeout, self.max_restarts = actor_timeout, max_restarts
        self.pretraining, self.intrinsic_reward = pretraining, intrinsic_reward
        memory: Any = self.policy.initial_memory(1)
        if memory is None:
            raise ConfigError(
                f"{type(self.policy).__name__} has no memory of last actions; take a RecurrentActorCritic"
            )
        storage.init_tensors({"init_actor_states": memory.core})
        self._weights = SharedWeights(self.policy)
        self._actor = Actor(self.policy, self._make_env, storage, self._weights, num_actors)
        self._pool: ActorPool | None = None
        self._loaders: list[threading.Thread] = []
        self._session = 0

    def train(  # type: ignore[override]
        self, num_train_steps: int = DEFAULT_BUDGET, init_model_path: str | Path | None = None
    ) -> None:
        """Train until the budget of valid environment steps is spent on updates.

        Args:
            num_train_steps: The budget; not given, that of the config of which the agent was made, if it was.
            init_model_path: A safetensors file with the policy's weights to begin from.

        Raises:
            WorkersLostError: If more actors were lost than are made good.
            ConfigError: If the file is of another network, or not there.
            CorruptError: If it cannot be read.
            Interrupted, NonFiniteError: As in Agent.
        """
        if init_model_path is not None:
            load_policy(self.policy, read_weights(Path(init_model_path)))
        given = num_train_steps is not DEFAULT_BUDGET or self.num_train_steps is None
        super().train(num_train_steps if given else None)
        if self.pretraining:
            self._save_weights()

    # -- the actors' side -------------------------------------------------------------------------------------------

    def run(self, env: Any, actor_idx: int, free_queue: Any, full_queue: Any) -> None:
        """Be an actor: fill slots until None comes from free_queue. The pool's processes run the same.

        Args:
            env: A VectorEnv, or a gymnasium.Env.
            actor_idx: Which actor.
            free_queue: get gives a slot to fill, one for each environment.
            full_queue: put takes a slot that is full.
        """
        vector = (
            env
            if isinstance(env, VectorEnv)
            else vector_of(lambda: env, 1, seed=derive_seed(self.seed, ENV, actor_idx))
        )
        if self._weights.version == 0:
            self._weights.publish(self.policy)
        self._actor.run(vector, actor_idx, free_queue, full_queue)

    def _begin(self) -> None:
        if self._pool is not None:  # an update has begun before
            return
        self._weights.publish(self.policy)
        self._pool = pool = ActorPool(
            self._actor,
            self.env.num_envs,
            self.num_actors,
            self.storage.num_storages,
            self.seed,
            self._session,
            self.actor_timeout,
            self.max_restarts,
        )
        self._session += 1
        self._batches: queue.Queue[Any] = queue.Queue(self.num_learners)
        self._stopping = threading.Event()
        self._waited, self._logged, self._idle = 0.0, time.monotonic(), float(self._actor.stats[:, WAITING].sum())
        pool.start()
        for _ in range(self.num_learners):
            self._loaders.append(threading.Thread(target=self._load, args=(pool,), daemon=True))
            self._loaders[-1].start()

    def _end(self) -> None:
        if self._pool is None:
            return
        self._stopping.set()
        self._pool.close()
        for thread in self._loaders:
            thread.join()
        self._loaders.clear()
        self._pool = None

    def _load(self, pool: ActorPool) -> None:
        """Load batches ahead of the updates."""
        states = self.storage.init_actor_state_storages
        batch: Any = None
        while not isinstance(batch, Exception):
            try:
                batch = self.storage.sample(
                    self.device, self.storage.batch_size, pool, pool, self.storage.storages, states
                )
            except Exception as error:
                batch = error
            while not self._stopping.is_set():
                try:
                    self._batches.put(batch, timeout=0.1)
                    break
                except queue.Full:
                    continue

    # -- the learner's side -----------------------------------------------------------------------------------------

    def _iterate(self) -> dict[str, float]:
        while True:
            self._learn()
            if self._iteration_ends():
                return {**self._mean_figures(), **self._idle_shares()}

    def update(self) -> dict[str, float]:
        """One update, with the next batch; the first starts the actors. Returns figures to log.

        Raises:
            WorkersLostError: If there will be no batch.
        """
        self._begin()
        return self._learn()

    def _learn(self) -> dict[str, float]:
        batch = self._next_batch()
        self.algorithm.progress = min(self.step / self._budget, 1.0) if self._budget else 0.0
        lag = self._weights.version - float(batch.versions[:-1].float().mean())
        info = self.algorithm.update(_One(batch))
        info = self.storage.after_gradients(self.policy, self.algorithm, info)
        self._weights.publish(self.policy)
        self.step += int(batch.valid[:-1].sum())
        lengths = batch.episode_lengths[:-1]
        ended = lengths > 0
        self.episode_returns.extend(batch.episode_returns[:-1][ended].tolist())
        self.episode_lengths.extend(lengths[ended].tolist())
        self._add_figures({**info, "policy_lag": lag})
        self.services.progress.update(self.step, self._episode_metrics().get("train/episode_return"))
        return info

    def _next_batch(self) -> Any:
        asked = time.monotonic()
        while True:
            self._check_stop()
            try:
                batch = self._batches.get(timeout=0.1)
                break
            except queue.Empty:
                continue
        self._waited += time.monotonic() - asked
        if isinstance(batch, Exception):
            self._check_stop()  # a signal to the whole group may have taken the actors
        if isinstance(batch, PoolClosed) and self._pool is not None and self._pool.failure is not None:
            raise self._pool.failure
        if isinstance(batch, Exception):
            raise batch
        if self.intrinsic_reward is not None and self.pretraining:
            batch["rewards"][:-1] = self.intrinsic_reward(batch)
        return batch

    def _idle_shares(self) -> dict[str, float]:
        now, idle = time.monotonic(), float(self._actor.stats[:, WAITING].sum())
        seconds = now - self._logged
        shares = {
            "speed/learner_idle": self._waited / seconds,
            "speed/actors_idle": (idle - self._idle) / (seconds * self.num_actors),
        }
        self._waited, self._logged, self._idle = 0.0, now, idle
        return shares

    def _save_weights(self) -> None:
        from safetensors.torch import save

        folder = self.services.folder.path if self.services.folder else Path()
        path = folder / f"pretrained-{self.tag}.safetensors"
        write_whole(path, save({name: value.contiguous().clone() for name, value in self.policy.state_dict().items()}))
        log.info("pretrained weights: %s", path)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "session": self._session}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._session = state["session"]
        log.warning("actors begin with fresh episodes; this resume is not exact")

    def _load_data(self, state: dict[str, Any]) -> None:
        """Nothing: rollouts that were under way are collected again, with the weights that were saved."""


class _One:
    """A storage of one batch."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def generate_batches(self, *args: Any, **kwargs: Any) -> Any:
        yield self._batch


def _check_slots(num_envs: int, num_storages: int, batch_size: int) -> None:
    """An actor takes slots for all its environments at once, and a learner waits for a whole batch.

    Neither may starve while the learner holds all but one of its batch, and one less than an actor needs are free.
    """
    needed = batch_size + num_envs - 1
    if num_storages < needed:
        raise ConfigError(
            f"num_storages={num_storages} does not keep both a batch of batch_size={batch_size} and an actor with "
            f"{num_envs} environments going; it must be at least {needed}"
        )
