"""The on-policy loop: fill a rollout, learn from it, forget it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch

from hsw.agent.base import Agent, StopRequested
from hsw.errors import ConfigError
from hsw.run.checkpoint import clone_state
from hsw.storage import RolloutStorage


class OnPolicyAgent(Agent):
    """Collects rollouts and hands them to the algorithm (PPO, DAAC, ...). Arguments as in Agent."""

    storage_type: ClassVar[type] = RolloutStorage

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse settings that cannot work together, from the plain config alone.

        Raises:
            ConfigError: If a rollout cannot be split into the minibatches asked for.
        """
        storage, algorithm = config["storage"], config["algorithm"]
        size = storage.get("num_steps", storage.get("size", 0)) * storage.get("num_envs", 1)
        if algorithm.get("num_mini_batch", 1) > size:
            raise ConfigError(
                f"{size} transitions cannot make {algorithm['num_mini_batch']} minibatches; "
                "lower algorithm.num_mini_batch or raise storage.num_steps"
            )

    def _iterate(self) -> dict[str, float]:
        storage, policy, algorithm = self.storage, self.policy, self.algorithm
        self._collect()
        # Schedules are at the value that they had when the rollout began: the first is full, and the last is not 0.
        algorithm.progress = min(self.iteration_start / self._budget, 1.0)
        storage.before_gradients(policy, algorithm)
        info = self._update()
        info = storage.after_gradients(policy, algorithm, info)
        self.services.progress.update(self.step, self._episode_metrics().get("train/episode_return"))
        return {f"learn/{name}": value for name, value in info.items()}

    def _collect(self) -> None:
        with self.policy.acting(), torch.no_grad():
            while not self.storage.full:  # type: ignore[attr-defined]
                self._check_stop()
                self._collect_row()
        self._count_episodes()

    def _collect_row(self) -> None:
        actions, extras = self.policy.act(self._tensors(self.obs))
        step = self.env.step(actions.cpu().numpy())
        self.storage.add(  # type: ignore[attr-defined]
            self.obs,
            actions,
            step.rewards,
            step.terminateds,
            step.truncateds,
            step.obs,
            valid=step.valid,
            **extras,
        )
        self.obs = step.obs
        self.step += int(np.count_nonzero(step.valid))

    def _update(self) -> dict[str, float]:
        # An update of a large network takes minutes, and a signal cannot wait for it. It is then undone, and the
        # checkpoint holds the full rollout, from which the resumed run makes the same update from its beginning.
        before = clone_state(
            [self.policy.state_dict(), self.algorithm.state_dict(), self.storage.generator.get_state()]
        )
        try:
            return self.algorithm.update(_Interruptible(self.storage, self._check_stop))
        except StopRequested:
            policy, algorithm, generator = before
            self.policy.load_state_dict(policy)
            self.algorithm.load_state_dict(algorithm)
            self.storage.generator.set_state(generator)
            raise


class _Interruptible:
    """A storage whose batches end when a signal came."""

    def __init__(self, storage: Any, check: Any) -> None:
        self._storage, self._check = storage, check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def generate_batches(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for batch in self._storage.generate_batches(*args, **kwargs):
            self._check()
            yield batch
