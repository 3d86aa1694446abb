"""What the training loops share: housekeeping around their updates."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from hsw.agent.evaluation import evaluate
from hsw.algorithm import Algorithm
from hsw.bounds import Range
from hsw.device import move_owned, resolve_device
from hsw.env import VectorEnv
from hsw.errors import ConfigError, Interrupted, NonFiniteError
from hsw.network import Policy
from hsw.run.services import Every, Run
from hsw.seeding import STORAGE, derive_seed, get_rng_state, set_rng_state
from hsw.spaces import tree_map
from hsw.storage import Storage

log = logging.getLogger("hsw")


class StopRequested(Exception):
    """A signal asks the loop to save and stop."""


class Agent(ABC):
    """A loop: collect, update, log. It knows no algorithm.

    Args:
        env: The training environment.
        eval_env: An evaluation environment, or better a function that makes one: each evaluation then plays the same
            episodes. None evaluates never.
        tag: Name of what is being tried.
        seed: The run's.
        device: Where the networks are.
        policy, algorithm, storage: What is trained, how, and from what.
        eval_interval: Steps between evaluations; None evaluates at the end only.
        eval_episodes, eval_deterministic: Of each evaluation.
        run: Folder, logger and checkpoints; None writes nothing.
    """

    storage_type: ClassVar[type] = Storage
    num_train_steps: int | None = None  # the config's budget, of an agent that was made of one

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse settings that cannot work together, from the plain config alone, with a ConfigError."""
        return

    def __init__(
        self,
        env: VectorEnv,
        eval_env: VectorEnv | Callable[[], VectorEnv] | None = None,
        tag: str = "default",
        seed: int = 1,
        device: str = "cpu",
        *,
        policy: Policy,
        algorithm: Algorithm,
        storage: Storage,
        eval_interval: Annotated[int | None, Range(1)] = None,
        eval_episodes: Annotated[int, Range(1)] = 20,
        eval_deterministic: bool = True,
        run: Run | None = None,
    ) -> None:
        self.env, self.eval_env = env, eval_env
        self.tag, self.seed, self.device = tag, seed, resolve_device(device)
        self.policy, self.algorithm, self.storage = policy.to(self.device), algorithm, storage
        self.eval_episodes, self.eval_deterministic = eval_episodes, eval_deterministic
        self.services = run or Run()
        self.step = 0
        self.iteration_start = 0  # a resumed run may be in the midst of an iteration
        self.best_score: float | None = None
        self.last_score: float | None = None  # of the last evaluation in this process
        self.every_eval = Every(eval_interval)
        self.every_log = Every(None)  # of loops that take many updates to a logged row
        self.episode_returns: deque[float] = deque(maxlen=100)
        self.episode_lengths: deque[int] = deque(maxlen=100)
        self.episode_successes: deque[bool] = deque(maxlen=100)  # of environments that tell
        self.obs: Any = None
        self._budget = 0
        self._sums: dict[str, float] = defaultdict(float)  # of the updates' figures since the last logged row
        move_owned(algorithm, self.device)  # what it made before the policy came here
        storage.bind(policy, algorithm)
        storage.seed(derive_seed(seed, STORAGE))

    @abstractmethod
    def _iterate(self) -> dict[str, float]:
        """Collect and update once. Returns figures to log."""

    def train(self, num_train_steps: int | None = None) -> dict[str, Any] | None:
        """Train until the budget of valid environment steps is spent.

        Args:
            num_train_steps: The budget; None takes that of the config of which the agent was made.

        Returns:
            The final evaluation, or None where there is no evaluation environment.

        Raises:
            ConfigError: If there is no budget.
            Interrupted: If a signal stopped it; its state is saved.
            NonFiniteError: If a loss is not finite; its batch is saved.
        """
        num_train_steps = self.num_train_steps if num_train_steps is None else num_train_steps
        if num_train_steps is None:
            raise ConfigError("this agent has no budget of its own; train(num_train_steps=<steps>)")
        self._budget = num_train_steps
        error: BaseException | None = None
        try:
            with self.services.signals:
                try:
                    # A checkpoint that was due within the iteration is still to come at its end.
                    self.services.start(num_train_steps, self.iteration_start)
                    return self._loop()
                finally:
                    self._end()
        except BaseException as caught:
            error = caught
            raise
        finally:
            self.services.finish(error)

    def _begin(self) -> None:
        """What training needs before its first iteration."""
        if self.obs is None:
            self.obs = self.env.reset()

    def _end(self) -> None:
        """Give back what _begin took, however training ended."""
        return

    def _loop(self) -> dict[str, Any] | None:
        self._begin()
        self.services.progress.update(self.step)
        try:
            while self.iteration_start < self._budget:
                if self.every_eval.due(self.iteration_start):
                    self._evaluate()
                self.every_log.done(self.iteration_start)
                begin, start = self.step, time.perf_counter()
                metrics = self._iterate()
                self.iteration_start = self.step
                if self.step > begin:  # a resumed run may begin with the update of a rollout that was full already
                    metrics["speed/steps_per_second"] = (self.step - begin) / (time.perf_counter() - start)
                self.services.log(self.step, {**self._episode_metrics(), **metrics})
                if self.services.every_checkpoint.due(self.step):
                    self.services.save(self.state_dict(), self.step)
            scores = self._evaluate() if self.eval_env is not None else None
            self.services.progress.update(self.step, self._episode_metrics().get("train/episode_return"), force=True)
        except StopRequested:
            self._stop()
        except NonFiniteError as error:
            path = self.services.save_batch(error.batch, self.step)
            raise NonFiniteError(
                f"{error} at step {self.step}" + (f"; its batch is in {path}" if path else "")
            ) from None
        self.services.save(self.state_dict(), self.step, final=True)
        return scores

    def eval(self, num_episodes: int | None = None) -> dict[str, Any]:
        """Evaluate now, on the evaluation environment; touches neither the training environment nor its randomness.

        Raises:
            ConfigError: If there is no evaluation environment.
            StopRequested: If a signal came.
        """
        if self.eval_env is None:
            raise ConfigError("this agent has no evaluation environment; give it eval_env")
        own = not isinstance(self.eval_env, VectorEnv)
        env = self.eval_env() if callable(self.eval_env) else self.eval_env
        env.load_obs_statistics(self.env.obs_statistics())
        try:
            scores = evaluate(
                self.policy,
                env,
                num_episodes or self.eval_episodes,
                self.eval_deterministic,
                self.seed,
                self.device,
                stop=lambda: self.services.signals.requested is not None,
            )
        finally:
            if own:
                env.close()
        if scores is None:
            raise StopRequested
        return scores

    def _evaluate(self) -> dict[str, Any]:
        scores = self.eval()
        self.last_score = scores["mean"]
        self.every_eval.done(self.step)
        names = ("mean", "std", "min", "max")
        success = {"eval/success": scores["success"]} if "success" in scores else {}
        self.services.log(self.step, {**{f"eval/return_{name}": scores[name] for name in names}, **success})
        if self.best_score is None or scores["mean"] > self.best_score:
            self.best_score = scores["mean"]
            weights = {"policy": self.policy.state_dict(), "env": {"obs_statistics": self.env.obs_statistics()}}
            self.services.save_best(weights, self.step, scores["mean"])
        return scores

    def _episode_metrics(self) -> dict[str, float]:
        if not self.episode_returns:
            return {}
        metrics = {
            "train/episode_return": float(np.mean(self.episode_returns)),
            "train/episode_length": float(np.mean(self.episode_lengths)),
        }
        if self.episode_successes:
            metrics["train/success"] = float(np.mean(self.episode_successes))
        return metrics

    def _iteration_ends(self) -> bool:
        """Whether it is time to log, to evaluate, to save or to stop."""
        every = (self.every_log, self.every_eval, self.services.every_checkpoint)
        return self.step >= self._budget or any(one.due(self.step) for one in every)

    def _add_figures(self, figures: dict[str, float]) -> None:
        """Count an update and its figures towards the next logged row."""
        for name, value in {**figures, "updates": 1}.items():
            self._sums[name] += value

    def _mean_figures(self) -> dict[str, float]:
        """The logged row: means over its updates."""
        updates = self._sums.pop("updates", 0)
        means = {f"learn/{name}": total / updates for name, total in self._sums.items()}
        self._sums.clear()
        return means

    def _count_episodes(self) -> None:
        for episode in self.env.pop_episodes():
            self.episode_returns.append(episode.episode_return)
            self.episode_lengths.append(episode.length)
            if episode.success is not None:
                self.episode_successes.append(episode.success)

    def _tensors(self, obs: Any) -> Any:
        return tree_map(lambda part: torch.from_numpy(part).to(self.device), obs)

    def _check_stop(self) -> None:
        if self.services.signals.requested is not None:
            raise StopRequested

    def _stop(self) -> None:
        signum = self.services.signals.requested
        assert signum is not None
        self._count_episodes()  # those of a half-filled rollout
        self.services.save(self.state_dict(), self.step, final=True)
        folder = self.services.folder
        where = f"; continue with: python -m hsw.train resume={folder.path}" if folder else ""
        raise Interrupted(f"stopped by signal {signum} at step {self.step}{where}", signum)

    def state_dict(self) -> dict[str, Any]:
        """All that continues the run."""
        return {
            "step": self.step,
            "iteration_start": self.iteration_start,
            "best_score": self.best_score,
            "last_eval": self.every_eval.last,
            "episode_returns": list(self.episode_returns),
            "episode_lengths": list(self.episode_lengths),
            "episode_successes": list(self.episode_successes),
            "policy": self.policy.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "storage": self.storage.state_dict(),
            "env": self.env.state_dict(),
            "obs": None if self.obs is None else tree_map(torch.from_numpy, self.obs),
            "rng": get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where state_dict was taken.

        Raises:
            ConfigError: If the state belongs to other networks.
        """
        self.step, self.iteration_start = state["step"], state["iteration_start"]
        self.best_score = state["best_score"]
        self.every_eval.done(state["last_eval"])
        self.episode_returns.extend(state["episode_returns"])
        self.episode_lengths.extend(state["episode_lengths"])
        self.episode_successes.extend(state.get("episode_successes", ()))  # a checkpoint of before has none
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


def load_policy(policy: Policy, weights: dict[str, torch.Tensor]) -> None:
    """Load weights into a policy.

    Raises:
        ConfigError: If they are of another network, naming what differs.
    """
    own = policy.state_dict()
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [
        f"{key} is {tuple(weights[key].shape)} and should be {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(weights))
        if own[key].shape != weights[key].shape
    ]
    if missing or unknown or shapes:
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise ConfigError(f"the checkpoint is of another network or environment: {'; '.join(parts + shapes)}")
    policy.load_state_dict(weights)
