"""The distributed loop: actors collect elsewhere, learner threads load, one learner updates."""

from __future__ import annotations

import logging
import multiprocessing.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from hsw.agent.actors import Actors
from hsw.agent.base import Agent, StopRequested
from hsw.agent.impala_defaults import algorithm_of, check_names, check_slots, policy_of
from hsw.agent.pool import ProcessPool
from hsw.agent.protocols import ActorMemory, ActorPolicy, Augmentation, EnvLike, IntrinsicRewards, Learner, Pool
from hsw.agent.seats import Crew
from hsw.agent.transitions import of_windows, replaced
from hsw.agent.weights import load_policy, read_weights, write_weights
from hsw.bounds import Range
from hsw.env import VectorEnv, as_vector_env, remaker
from hsw.errors import ConfigError
from hsw.run.callback import Callback
from hsw.run.services import Every, Run
from hsw.run.watched import guarded
from hsw.seeding import ENV, EVAL_ENV, derive_seed, rank_seed
from hsw.spaces import tree_map
from hsw.storage import DistributedStorage
from hsw.template import Whole

log = logging.getLogger("hsw")


class _Default(int):
    """A number that is told from the same number given by a caller."""


DEFAULT_BUDGET = _Default(30_000_000)


class DistributedAgent(Agent):
    """Actors and a learner (IMPALA, Espeholt et al. 2018, arXiv:1802.01561).

    Args:
        env: What the actors build anew: a gymnasium.Env or gymnasium.vector.VectorEnv with a spec, a function that
            makes one, or a VectorEnv of make_env. A vector is then each actor's.
        eval_env: As in Parts; None evaluates in env's own kind, with other seeds.
        tag, seed, device: As in Parts. Actors act on the CPU, and learning is on the device.
        num_steps: T, of the storage.
        num_actors: Processes, on this machine or, with another pool, on others.
        num_learners: Threads that load batches; updates come one after another.
        num_storages: Slots of the storage.
        policy, algorithm, storage: What is trained, how, and from what; None takes IMPALA's, made of `recipe`.
        actor_timeout: Seconds without a step after which an actor counts as hung.
        max_restarts: How many actors' deaths are made good, in all.
        pool: Where actors run: ProcessPool, RayPool, or anything that makes a hsw.agent.protocols.Pool of a Crew.
        log_interval: Steps between logged rows.
        pretraining: Train on intrinsic_reward in place of the environment's, and save what init_model_path reads.
        intrinsic_reward: As in Parts; or a function of a batch that gives [T, B] rewards, for pretraining alone.
        eval_interval, eval_episodes, eval_deterministic, callbacks, augmentation, run: As in Parts.
        recipe: num_envs (of each actor), batch_size, hidden_dim, discount, and any argument of IMPALA and of
            RecurrentActorCritic.

    Raises:
        ConfigError: If the actors could not work so.
        TypeError: If the recipe has an unknown name.
    """

    needs: ClassVar[Mapping[str, type]] = {"policy": ActorPolicy, "algorithm": Learner, "storage": ActorMemory}
    inexact = "its actors are not in step with its learner"
    storage: ActorMemory

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
        check_slots(config["env"]["num_envs"], storage.get("num_storages", 80), storage.get("batch_size", 32))

    def __init__(
        self,
        env: EnvLike,
        eval_env: EnvLike | None = None,
        tag: str = "default",
        seed: int = 1,
        device: str = "cpu",
        num_steps: Annotated[int, Range(1)] = 80,
        num_actors: Annotated[int, Range(1)] = 45,
        num_learners: Annotated[int, Range(1)] = 4,
        num_storages: Annotated[int, Range(1)] = 60,
        *,
        policy: ActorPolicy | None = None,
        algorithm: Learner | None = None,
        storage: ActorMemory | None = None,
        actor_timeout: Annotated[float, Range(0, open_low=True)] = 60.0,
        max_restarts: Annotated[int, Range(0)] = 10,
        pool: Callable[[Crew], Pool] | None = None,
        log_interval: Annotated[int, Range(1)] = 10_000,
        pretraining: bool = False,
        intrinsic_reward: IntrinsicRewards | Callable[..., Any] | None = None,
        eval_interval: Annotated[int | None, Range(1)] = None,
        eval_episodes: Annotated[int, Range(1)] = 20,
        eval_deterministic: bool = True,
        callbacks: Sequence[Callback] | Mapping[str, Callback] = (),
        augmentation: Augmentation | None = None,
        run: Run | None = None,
        **recipe: Any,
    ) -> None:
        if pretraining and intrinsic_reward is None:
            raise ConfigError("pretraining=True needs intrinsic_reward")
        check_names(recipe)
        batch_size = recipe.pop("batch_size", 32) if storage is None else storage.batch_size
        num_envs = recipe.pop("num_envs", max(1, min(16, (num_storages - batch_size) // num_actors)))
        self._make_env = remaker(env, num_envs)
        # A function of a batch is no source of rewards for transitions.
        source: Any = intrinsic_reward if hasattr(intrinsic_reward, "rewards") else None
        vector = env if isinstance(env, VectorEnv) else self._make_env(seed=seed)
        spaces = vector.observation_space, vector.action_space
        policy = policy_of(spaces, recipe) if policy is None else policy
        algorithm = algorithm_of(policy, recipe) if algorithm is None else algorithm
        if storage is None:
            storage = DistributedStorage(*spaces, str(device), num_steps, num_storages, batch_size)
        check_slots(vector.num_envs, storage.num_storages, storage.batch_size)
        super().__init__(
            vector,
            partial(self._make_env, seed=derive_seed(seed, EVAL_ENV), training=False) if eval_env is None else eval_env,
            tag,
            seed,
            device,
            policy=policy,
            algorithm=algorithm,
            storage=storage,
            eval_interval=eval_interval,
            eval_episodes=eval_episodes,
            eval_deterministic=eval_deterministic,
            callbacks=callbacks,
            augmentation=augmentation,
            intrinsic_reward=source,
            run=run,
        )
        vector.close()  # it has told its spaces; the actors build their own
        self.num_actors, self.num_learners = num_actors, num_learners
        self.every_log = Every(log_interval)
        self.actor_timeout, self.max_restarts = actor_timeout, max_restarts
        self.pool = pool or ProcessPool
        self.pretraining = pretraining
        self._reward_of_batch: Any = intrinsic_reward if source is None else None
        self._actors = Actors(self.policy, self._make_env, storage, num_actors, num_learners)

    def train(self, num_train_steps: int | None = DEFAULT_BUDGET, init_model_path: str | Path | None = None) -> None:
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
        with guarded() as beside:  # an actor that hangs in C ends with this process too, however that ends
            if beside:
                beside.tell(temporary=[multiprocessing.util.get_temp_dir()])
            super().train(num_train_steps if given else None)
        if self.pretraining and self.ranks.is_first:
            folder = self.services.folder.path if self.services.folder else Path()
            write_weights(folder / f"pretrained-{self.tag}.safetensors", self.policy)

    def run(self, env: Any, actor_idx: int, free_queue: Any, full_queue: Any) -> None:
        """Be an actor: fill slots until None comes from free_queue. The pool's processes run the same.

        Args:
            env: A VectorEnv, a gymnasium.Env, or a gymnasium.vector.VectorEnv.
            actor_idx: Which actor.
            free_queue: get gives a slot to fill, one for each environment.
            full_queue: put takes a slot that is full.
        """
        vector = as_vector_env(env, seed=derive_seed(rank_seed(self.seed), ENV, actor_idx))
        self._actors.run(vector, actor_idx, free_queue, full_queue)

    def _begin(self) -> None:
        if not self._actors.running:  # an update may have begun before
            options = rank_seed(self.seed), self.actor_timeout, self.max_restarts
            self._actors.begin(self.pool, self.env.num_envs, self.device, *options)

    def _end(self) -> None:
        self._actors.end()

    def _iterate(self) -> dict[str, float]:
        while True:
            self._learn()
            if self._iteration_ends():
                return {**self._mean_figures(), **self._actors.figures()}

    def update(self) -> dict[str, float]:
        """One update, with the next batch; the first starts the actors. Returns figures to log.

        Raises:
            WorkersLostError: If there will be no batch.
        """
        self._begin()
        return self._learn()

    def _learn(self) -> dict[str, float]:
        batch, steps = self._agreed_batch()
        self._clock.skip()
        self.algorithm.progress = min(self.step / self._budget, 1.0) if self._budget else 0.0
        lag = self._actors.version - float(batch.versions[:-1].float().mean())
        figures = self._add_bonus(batch)
        self.storage.take(batch)
        self.storage.before_gradients(self.policy, self.algorithm)
        info = {**figures, **self._update_policy()}
        info = self.storage.after_gradients(self.policy, self.algorithm, info)
        self._actors.publish()
        self.step += steps
        lengths = batch.episode_lengths[:-1]
        ended = lengths > 0
        self.num_episodes += int(ended.sum())
        self.episode_returns.extend(batch.episode_returns[:-1][ended].tolist())
        self.episode_lengths.extend(lengths[ended].tolist())
        self._means.add({**info, "policy_lag": lag})
        self._clock.lap("learning")
        self._clock.turn()
        self._show_progress()
        return info

    def _add_bonus(self, batch: Any) -> dict[str, float]:
        """The intrinsic reward beside the environment's, or in pretraining in its place."""
        rewards = batch["rewards"][:-1]
        figures: dict[str, float] = {}
        if self.intrinsic_reward is not None:
            bonus, figures = self._bonus(of_windows(batch))
            rewards.copy_(bonus.view_as(rewards) + (0.0 if self.pretraining else rewards))
        elif self._reward_of_batch is not None and self.pretraining:
            rewards.copy_(self._reward_of_batch(batch))
        return figures

    def _on_batch(self, batch: Any) -> Any:
        self._drawn += 1
        if self.augmentation is None:
            return batch
        num_rows = len(batch["rewards"])
        obs = self.augmentation.augment(tree_map(lambda part: part.flatten(0, 1), batch["obs"]))
        return replaced(batch, obs=tree_map(lambda part: part.unflatten(0, (num_rows, -1)), obs))

    def _agreed_batch(self) -> tuple[Any, int]:
        """The next batch, and the valid steps in those of all ranks.

        Raises:
            StopRequested: If a signal came; of several ranks, on all of them.
        """
        try:
            batch = self._actors.next_batch(self._stop_alone)
        except StopRequested:
            self._summed(0)  # the other ranks wait there
            raise
        steps = self._summed(int(batch.valid[:-1].sum()))
        if self.ranks.size > 1:
            self.check_stop()
        return batch, steps

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "session": self._actors.session}

    def state_template(self) -> Any:
        return {**super().state_template(), "session": Whole()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._actors.session = state["session"]
        log.warning("actors begin with fresh episodes; this resume is not exact")

    def _load_data(self, state: dict[str, Any]) -> None:
        """Nothing: rollouts that were under way are collected again, with the weights that were saved."""
