"""What the training loops are made of: environments, networks, memory, counters; as one state."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from hsw.agent.figures import Clock, Means
from hsw.agent.in_step import average_batch_norm
from hsw.agent.protocols import ActingPolicy, Augmentation, EnvLike, IntrinsicRewards, Learner, Memory, require
from hsw.agent.transitions import replaced
from hsw.agent.watching import Watchers
from hsw.agent.weights import check_policy, load_policy
from hsw.algorithm.intrinsic import Transitions
from hsw.bounds import Range
from hsw.device import move_owned, resolve_device
from hsw.env import as_vector_env
from hsw.errors import ConfigError
from hsw.ranks import current
from hsw.run.callback import Callback
from hsw.run.services import Every, Run
from hsw.seeding import (
    ENV,
    EVAL_ENV,
    STORAGE,
    derive_seed,
    get_rng_state,
    rank_seed,
    rng_template,
    seed_everything,
    set_rng_state,
)
from hsw.spaces import tree_map
from hsw.template import Each, Fields, Flag, Maybe, Number, Text, Whole, hold, space_template, template_of
from hsw.transfer import to_device

log = logging.getLogger("hsw")
_LISTS = {"returns": Each(Number()), "lengths": Each(Whole(1))}
_SCORES = Fields({**dict.fromkeys(("mean", "std", "min", "max"), Number()), **_LISTS}, {"success": Number(0)})


class Parts:
    """What a loop is made of: held together, watched, saved and restored.

    The policy is in eval mode while it acts and is evaluated, and in train mode while the algorithm updates it: dropout
    and batch norm are the learner's alone.

    Args:
        env: The training environment: a VectorEnv, a gymnasium.Env, a gymnasium.vector.VectorEnv, or a function that
            makes one.
        eval_env: An evaluation environment of any of these kinds, best a function: each evaluation then plays the same
            episodes. None evaluates never.
        tag: Name of what is being tried.
        seed: The run's.
        device: Where the networks are.
        policy, algorithm, storage: What is trained, how, and from what; anything with the members in `needs`.
        eval_interval: Steps between evaluations; None evaluates at the end only.
        eval_episodes, eval_deterministic: Of each evaluation.
        callbacks: Are told of what happens; see hsw.run.callback. By name, or in a row.
        augmentation: Its `augment` changes the observations of every batch that is learnt from.
        intrinsic_reward: See hsw.algorithm.intrinsic; added to the environment's rewards.
        run: Folder, logger and checkpoints; None writes nothing.

    Raises:
        ConfigError: If the parts cannot be used, naming the members that are missing.
    """

    needs: ClassVar[Mapping[str, type]] = {"policy": ActingPolicy, "algorithm": Learner, "storage": Memory}

    def __init__(
        self,
        env: EnvLike,
        eval_env: EnvLike | None = None,
        tag: str = "default",
        seed: int = 1,
        device: str = "cpu",
        *,
        policy: ActingPolicy,
        algorithm: Learner,
        storage: Memory,
        eval_interval: Annotated[int | None, Range(1)] = None,
        eval_episodes: Annotated[int, Range(1)] = 20,
        eval_deterministic: bool = True,
        callbacks: Sequence[Callback] | Mapping[str, Callback] = (),
        augmentation: Augmentation | None = None,
        intrinsic_reward: IntrinsicRewards | None = None,
        run: Run | None = None,
    ) -> None:
        for name, given in (("policy", policy), ("algorithm", algorithm), ("storage", storage)):
            require(given, self.needs[name], name)
        if augmentation is not None:
            require(augmentation, Augmentation, "augmentation")
        if intrinsic_reward is not None:
            require(intrinsic_reward, IntrinsicRewards, "intrinsic_reward")
        self.ranks = current()
        self.env = as_vector_env(env, seed=derive_seed(rank_seed(seed), ENV))
        rows = getattr(storage, "num_envs", self.env.num_envs)
        if rows != self.env.num_envs:
            raise ConfigError(
                f"the storage is for {rows} environments and env has {self.env.num_envs}; give the storage "
                f"num_envs={self.env.num_envs}, or make {rows} with hsw.env.as_vector_env(function, num_envs={rows})"
            )
        if eval_env is not None and not callable(eval_env):
            eval_env = as_vector_env(eval_env, seed=derive_seed(seed, EVAL_ENV), training=False)
        self.eval_env = eval_env
        self.tag, self.seed, self.device = tag, seed, resolve_device(device)
        self.policy, self.algorithm, self.storage = policy.to(self.device), algorithm, storage
        self.eval_episodes, self.eval_deterministic = eval_episodes, eval_deterministic
        self.augmentation, self.intrinsic_reward = augmentation, intrinsic_reward
        for part in (augmentation, intrinsic_reward):
            if isinstance(part, torch.nn.Module):
                part.to(self.device)
        self.services = run or Run()
        self.watchers = Watchers(self, callbacks)
        self.stop_reason: str | None = None  # that of the last request_stop
        self.step = 0  # of all ranks together, as every budget and interval is
        self._own_steps = 0  # this rank's, which are not yet counted there
        self.iteration_start = 0  # a resumed run may be in the midst of an iteration
        self.best_score: float | None = None
        self.last_scores: dict[str, Any] | None = None  # of the last evaluation in this process
        self._restored_scores: dict[str, Any] | None = None  # of the last evaluation before this process
        self.every_eval = Every(eval_interval)
        self.every_log = Every(None)  # of loops that take many updates to a logged row
        self.num_episodes = 0
        self.episode_returns: deque[float] = deque(maxlen=100)
        self.episode_lengths: deque[int] = deque(maxlen=100)
        self.episode_successes: deque[bool] = deque(maxlen=100)  # of environments that tell
        self.obs: Any = None
        self._budget = 0
        self._stop_wanted: str | None = None  # a request_stop that is not yet met
        self._means, self._clock = Means(), Clock()
        self._drawn = 0  # that came through storage.on_batch
        move_owned(algorithm, self.device)  # what it made before the policy came here
        storage.bind(policy, algorithm)
        storage.seed(derive_seed(rank_seed(seed), STORAGE))
        if not self.ranks.is_first:  # the networks are made, alike on all; each explores by itself
            seed_everything(rank_seed(seed))
        storage.on_batch, storage.disk_folder = self._on_batch, self.services.disk_folder

    @property
    def session(self) -> int:
        """How often the run has been started, resumes included."""
        return self.services.session

    @property
    def last_score(self) -> float | None:
        """The mean return of the last evaluation in this process."""
        return None if self.last_scores is None else float(self.last_scores["mean"])

    # -- what the loops do with batches -----------------------------------------------------------------------------

    def _set_mode(self, training: bool) -> None:
        if self.policy.training != training:
            self.policy.train(training)

    def _update_policy(self) -> dict[str, float]:
        """The algorithm's update, from the storage."""
        self._set_mode(True)
        before = self._drawn
        self._clock.mark()
        info = self.algorithm.update(self.storage)
        self._clock.mark("update")
        average_batch_norm(self.ranks, self.policy)
        if self._drawn == before and (self.augmentation is not None or self.intrinsic_reward is not None):
            raise ConfigError(
                f"{type(self.storage).__name__}.generate_batches must give self.on_batch(batch) for each batch: "
                "augmentation and intrinsic_reward reach batches there"
            )
        return info

    def _on_batch(self, batch: Any) -> Any:
        """What every batch passes through on its way to the algorithm."""
        self._drawn += 1
        return batch if self.augmentation is None else self._augmented(batch, "obs")

    def _augmented(self, batch: Any, *names: str) -> Any:
        assert self.augmentation is not None
        return replaced(batch, **{name: self.augmentation.augment(getattr(batch, name)) for name in names})

    def _bonus(self, transitions: Transitions, observe: bool = True) -> tuple[torch.Tensor, dict[str, float]]:
        """The intrinsic rewards of transitions, [K], and figures to log."""
        source = self.intrinsic_reward
        assert source is not None
        if hasattr(source, "progress"):
            source.progress = min(self.step / self._budget, 1.0) if self._budget else 0.0
        if observe:
            source.observe(transitions)
        bonus = source.rewards(transitions).detach() * transitions.valid
        mean = float(bonus.sum() / transitions.valid.sum().clamp(min=1))
        return bonus, {"intrinsic_reward": mean, **source.update(transitions)}

    # -- figures ----------------------------------------------------------------------------------------------------

    def _episode_metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = {"train/episodes": self.num_episodes}
        if self.episode_returns:
            metrics["train/episode_return"] = float(np.mean(self.episode_returns))
            metrics["train/episode_length"] = float(np.mean(self.episode_lengths))
        if self.episode_successes:
            metrics["train/success"] = float(np.mean(self.episode_successes))
        return metrics

    def _episode_counts(self) -> dict[str, int]:
        """How many episodes each of the _episode_metrics is a mean of."""
        returns, successes = len(self.episode_returns), len(self.episode_successes)
        return {"train/episode_return": returns, "train/episode_length": returns, "train/success": successes}

    def _show_progress(self, force: bool = False) -> None:
        self.services.progress.update(self.step, self._episode_metrics().get("train/episode_return"), force=force)

    def _iteration_ends(self) -> bool:
        """Whether it is time to log, to evaluate, to save or to stop."""
        every = (self.every_log, self.every_eval, self.services.every_checkpoint)
        over = self.step >= self._budget or self._stop_wanted is not None
        return over or any(one.due(self.step) for one in every)

    def _mean_figures(self) -> dict[str, float]:
        """The logged row: of each figure the mean over the updates that had it."""
        return {f"learn/{name}": mean for name, mean in self._means.pop().items()}

    def _count_episodes(self) -> None:
        for episode in self.env.pop_episodes():
            self.num_episodes += 1
            self.episode_returns.append(episode.episode_return)
            self.episode_lengths.append(episode.length)
            if episode.success is not None:
                self.episode_successes.append(episode.success)

    def _tensors(self, obs: Any) -> Any:
        return to_device(obs, self.device)

    # -- the state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that continues the run."""
        intrinsic = {} if self.intrinsic_reward is None else {"intrinsic_reward": self.intrinsic_reward.state_dict()}
        return {
            "step": self.step,
            "iteration_start": self.iteration_start,
            "best_score": self.best_score,
            "last_eval": self.every_eval.last,
            "last_scores": self.last_scores or self._restored_scores,
            "stopping": self._stop_wanted,
            "episodes": self.num_episodes,
            "episode_returns": list(self.episode_returns),
            "episode_lengths": list(self.episode_lengths),
            "episode_successes": list(self.episode_successes),
            "policy": self.policy.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "storage": self.storage.state_dict(),
            "env": self.env.state_dict(),
            "obs": None if self.obs is None else tree_map(torch.from_numpy, self.obs),
            "callbacks": self.watchers.state_dict(),
            **intrinsic,
            "rng": get_rng_state(),
        }

    def state_template(self) -> Any:
        """What a saved state must look like."""
        recent = self.episode_returns.maxlen or 0
        own = {key: template_of(value, vary=True) for key, value in self.state_dict().items()}
        callbacks = {name: template_of(part, vary=True) for name, part in self.watchers.state_dict().items()}
        own |= {
            **dict.fromkeys(("step", "iteration_start", "last_eval", "episodes"), Whole()),
            "best_score": Maybe(Number()),
            "stopping": Maybe(Text()),
            "last_scores": Maybe(_SCORES),
            "episode_returns": Each(Number(), most=recent),
            "episode_lengths": Each(Whole(1), most=recent),
            "episode_successes": Each(Flag(), most=recent),
            "policy": template_of(self.policy.state_dict()),
            "obs": Maybe(space_template(self.env.observation_space, self.env.num_envs)),
            "callbacks": Fields({}, callbacks, others=True),  # some may have been added or left out since
            "rng": rng_template(),
        }
        for name, part in (("algorithm", self.algorithm), ("storage", self.storage), ("env", self.env)):
            own[name] = part.state_template() if hasattr(part, "state_template") else own[name]
        return own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where state_dict was taken.

        Raises:
            StateError: If the state is not of this agent and its parts.
        """
        check_policy(self.policy, state.get("policy"))
        saved = {key: value for key, value in state.items() if key != "logger"}  # which is not the agent's
        hold(self.state_template(), saved, "state", missing=self.services.restored_older)
        self.step, self.iteration_start = state["step"], state["iteration_start"]
        self.best_score = state["best_score"]
        self.every_eval.done(state["last_eval"])
        self._restored_scores = state.get("last_scores")
        self.episode_returns.extend(state["episode_returns"])
        self.episode_lengths.extend(state["episode_lengths"])
        # A checkpoint of hsw 0.1 has none of these.
        self.episode_successes.extend(state.get("episode_successes", ()))
        self._stop_wanted = self.stop_reason = state.get("stopping")
        self.num_episodes = state.get("episodes", 0)
        self.watchers.load_state_dict(state.get("callbacks", {}))
        if self.intrinsic_reward is not None and "intrinsic_reward" in state:
            self.intrinsic_reward.load_state_dict(state["intrinsic_reward"])
        load_policy(self.policy, state["policy"])
        self.algorithm.load_state_dict(state["algorithm"])
        self._load_data(state)
        set_rng_state(state["rng"])

    def _load_data(self, state: dict[str, Any]) -> None:
        """Restore what was collected, and the environments it came from."""
        self.storage.load_state_dict(state["storage"])
        difference = self.env.load_state_dict(state["env"])
        if difference:
            log.warning(difference)
        self.obs = tree_map(lambda part: part.numpy(), state["obs"]) if state["obs"] is not None else None
        if not self.env.exact:
            self.storage.truncate()
