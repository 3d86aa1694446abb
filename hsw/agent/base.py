"""What the training loops share: housekeeping around their updates."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from hsw.agent.evaluation import evaluate
from hsw.agent.extremes import likely_cause
from hsw.agent.in_step import over_ranks, require_equal, require_reduced
from hsw.agent.parts import Parts
from hsw.agent.profiling import ProfilingClock
from hsw.env import as_vector_env
from hsw.errors import ConfigError, EnvHangs, Interrupted, NonFiniteError
from hsw.run.paste import resume_command
from hsw.seeding import EVAL_ENV, derive_seed

log = logging.getLogger("hsw")


class StopRequested(Exception):
    """A signal asks the loop to save and stop."""


class Agent(Parts, ABC):
    """A loop: collect, update, log. It knows no algorithm. Arguments as in Parts."""

    num_train_steps: int | None = None  # the config's budget, of an agent that was made of one
    inexact: ClassVar[str | None] = None  # why a run of this loop does not go the same way twice, if it does not
    _in_step = False  # the ranks' weights were compared after updates

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse settings that cannot work together, from the plain config alone, with a ConfigError."""
        return

    @abstractmethod
    def _iterate(self) -> dict[str, float]:
        """Collect and update once. Returns figures to log."""

    @property
    def owes_updates(self) -> bool:
        """Whether the steps that were taken are worth an update that is still to come, or under way."""
        return False

    def train(self, num_train_steps: int | None = None) -> dict[str, Any] | None:
        """Train until the budget of valid environment steps is spent, or a callback asks to stop.

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
                    self.watchers.start()
                    return self._loop()
                finally:
                    self._clock.close()
                    self._end()
        except BaseException as caught:
            error = caught
            raise
        finally:
            try:
                self.watchers.end(error)
            finally:
                self.services.finish(error)

    def request_stop(self, reason: str) -> None:
        """End the run at the end of this iteration, as if its budget were spent: evaluated, saved, done."""
        self.stop_reason = self._stop_wanted = self._stop_wanted or reason

    def profile(self, folder: Path) -> None:
        """Profile a few iterations of the next training, see ProfilingClock."""
        self._clock = ProfilingClock(folder)

    def _begin(self) -> None:
        """What training needs before its first iteration."""
        if self.obs is None:
            self.obs = self.env.reset()

    def _end(self) -> None:
        """Give back what _begin took, however training ended."""
        return

    def _loop(self) -> dict[str, Any] | None:
        try:
            self._begin()
            where = {"step": self.step, "iteration's first step": self.iteration_start, "num_train_steps": self._budget}
            require_equal(self.ranks, self.policy, where)
            if self.ranks.size > 1:
                self.ranks.raised = self.ranks.heard = False  # an earlier agent's
            self._show_progress()
            while self.iteration_start < self._budget and self._stop_wanted is None:
                if self.every_eval.due(self.iteration_start):
                    self._evaluate()
                    continue  # a callback may have asked to stop
                self._take_iteration()
            if self._stop_wanted is not None:
                log.info("stopped at step %d: %s", self.step, self._stop_wanted)
            if self.every_eval.last == self.step:  # it was killed when nothing was left to do
                self.last_scores = self.last_scores or self._restored_scores
            if self.eval_env is not None and (self.last_scores is None or self.every_eval.last != self.step):
                self._evaluate()
            self._show_progress(force=True)
        except StopRequested:
            self._stop()
        except EnvHangs as error:
            if self.services.signals.requested is None:
                raise
            log.warning("%s; the row under way is dropped, and a resume draws its actions anew", error)
            with contextlib.suppress(StopRequested):  # the other ranks wait there
                self._agree()
            self._stop()
        except NonFiniteError as error:
            path = self.services.save_batch(error.batch, self.step)
            kept = f"; its batch is in {path}" if path else ""
            raise NonFiniteError(f"{error} at step {self.step}{self._cause(error.batch)}{kept}") from None
        self._stop_wanted = None  # whoever resumes a run that is done wants it to go on
        self._save(final=True)
        return self.last_scores if self.eval_env is not None else None

    def _take_iteration(self) -> None:
        self.every_log.done(self.iteration_start)
        begin = self.step
        self._clock.begin()
        metrics = self._iterate()
        self.iteration_start = self.step
        metrics = {**self._episode_metrics(), **metrics, **self._clock.metrics(self.step - begin)}
        metrics = over_ranks(self.ranks, metrics, self._episode_counts())
        if not self._in_step:
            require_reduced(self.ranks, self.policy, self.algorithm)
            self._in_step = True
        self.services.log(self.step, metrics)
        self._tell("on_iteration_end", metrics)
        if self.services.every_checkpoint.due(self.step):
            self._save()

    def _tell(self, event: str, *arguments: Any) -> None:
        """Tell the callbacks; what they ask of rank 0, all ranks are asked."""
        if self.ranks.size == 1 or not self.watchers.any:
            self.watchers.tell(event, *arguments)
            return

        def tell() -> str | None:
            self.watchers.tell(event, *arguments)
            return self._stop_wanted

        wanted = self.ranks.first(tell)
        if not self.ranks.is_first:
            self.watchers.tell(event, *arguments)
            self.stop_reason = self._stop_wanted = wanted

    def eval(self, num_episodes: int | None = None) -> dict[str, Any]:
        """Evaluate now, on the evaluation environment; touches neither the training environment nor its randomness.

        Raises:
            ConfigError: If there is no evaluation environment.
            StopRequested: If a signal came.
        """
        if self.eval_env is None:
            raise ConfigError("this agent has no evaluation environment; give it eval_env")
        env = as_vector_env(self.eval_env, seed=derive_seed(self.seed, EVAL_ENV), training=False)
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
                on_episode=self.services.progress.evaluating,
            )
        finally:
            if env is not self.eval_env:
                env.close()
        if scores is None:
            raise StopRequested
        return scores

    def _evaluate(self) -> None:
        scores = self.ranks.first(self._scores)
        if scores is None:
            raise StopRequested
        self.last_scores = scores
        self.services.progress.evaluated(self.step, scores)
        self.every_eval.done(self.step)
        names = ("mean", "std", "min", "max")
        success = {"eval/success": scores["success"]} if "success" in scores else {}
        figures = {f"eval/return_{name}": scores[name] for name in names}
        self.services.log(self.step, {**figures, **success, "eval/length": float(np.mean(scores["lengths"]))})
        if self.best_score is None or scores["mean"] > self.best_score:
            self.best_score = scores["mean"]
            weights = {"policy": self.policy.state_dict(), "env": {"obs_statistics": self.env.obs_statistics()}}
            self.services.save_best(weights, self.step, scores["mean"])
        self._tell("on_evaluation_end", scores)

    def _scores(self) -> dict[str, Any] | None:
        """eval, for all ranks; None if a signal came."""
        try:
            return self.eval()
        except StopRequested:
            return None
        except EnvHangs:
            if self.ranks.size == 1 or not self._asked():
                raise
            return None

    def _cause(self, batch: dict[str, Any]) -> str:
        """What may have made an update of this batch not finite, in words for the end of a sentence."""
        return likely_cause({"obs": self.obs}, env_axis=0) or likely_cause(batch)

    # -- stopping, saving, going on ---------------------------------------------------------------------------------

    def _asked(self) -> bool:
        """Whether this rank knows of a signal, to itself or to another."""
        return self.services.signals.requested is not None or self.ranks.heard

    def _stop_alone(self) -> None:
        """Raise StopRequested if a signal came to this rank, which must then tell the others."""
        if self._asked():
            raise StopRequested

    def check_stop(self) -> None:
        """Raise StopRequested if a signal came, to whichever rank: on all of them, once all have heard of it."""
        stops = self._asked()
        if self.ranks.size > 1:
            self.ranks.raised, stops = stops, self.ranks.heard
        if stops:
            raise StopRequested

    def _summed(self, steps: int) -> int:
        """The steps of all ranks together. All hear there whether one of them was asked to stop."""
        if self.ranks.size == 1:
            return steps
        told = self.ranks.sum_(torch.tensor([steps, self._asked()], dtype=torch.int64)).tolist()
        self.ranks.heard = told[1] > 0
        return int(told[0])

    def _count_steps(self, steps: int) -> None:
        """Count this rank's steps; those of several ranks are together once they agree."""
        if self.ranks.size == 1:
            self.step += steps
        else:
            self._own_steps += steps

    def _agree(self) -> None:
        """Count the steps of all ranks, and stop if one of them was asked to: where each comes after its own rows."""
        self.step += self._summed(self._own_steps)
        self._own_steps = 0
        self.check_stop()

    def _stop(self) -> None:
        # Of several ranks, the first that was asked tells all by which signal.
        asked = [told["signal"] for told in self.ranks.exchange({"signal": self.services.signals.requested})]
        signum = self.services.signals.requested = next(signum for signum in asked if signum is not None)
        self._count_episodes()  # those of a half-filled rollout
        self._save(final=True)
        folder = self.services.folder
        where = f"; continue with: {resume_command(folder.path, self.services.trusts)}" if folder else ""
        raise Interrupted(f"stopped by signal {signum} at step {self.step}{where}", signum)

    def _save(self, final: bool = False) -> None:
        path = self.services.save(self.state_dict(), self.step, final=final)
        if path is not None:
            self.watchers.tell("on_checkpoint", path)
