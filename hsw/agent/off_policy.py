"""The off-policy loop: store every transition, learn from what is stored."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from hsw.agent.base import Agent
from hsw.algorithm import Algorithm
from hsw.bounds import Range
from hsw.env import VectorEnv
from hsw.errors import ConfigError, NonFiniteError
from hsw.network import Policy
from hsw.run.services import Every, Run
from hsw.spaces import tree_map
from hsw.storage import ReplayStorage, Storage


class OffPolicyAgent(Agent):
    """Collects a row, then updates as often as its steps are worth (SAC, ...).

    Args:
        num_warmup_steps: Steps with random actions, before the first update.
        updates_per_step: Updates for each step after the warm-up.
        log_interval: Steps between logged rows, each the mean over its updates.
        env, eval_env, tag, seed, device, policy, algorithm, storage, eval_interval, eval_episodes, eval_deterministic,
        run: As in Agent.
    """

    storage_type: ClassVar[type] = ReplayStorage

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse settings that cannot work together, from the plain config alone.

        Raises:
            ConfigError: If the environment would normalise what is stored.
        """
        for key, instead in (("normalize_obs", "; set network.normalize_obs=true instead"), ("normalize_reward", "")):
            if config["env"].get(key):
                raise ConfigError(
                    f"env.{key}=true would store numbers whose scale moves on while they are kept, and hindsight goals "
                    f"could not be compared{instead}"
                )

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
        num_warmup_steps: Annotated[int, Range(0)] = 1000,
        updates_per_step: Annotated[float, Range(0, open_low=True)] = 1.0,
        log_interval: Annotated[int, Range(1)] = 1000,
        eval_interval: Annotated[int | None, Range(1)] = None,
        eval_episodes: Annotated[int, Range(1)] = 20,
        eval_deterministic: bool = True,
        run: Run | None = None,
    ) -> None:
        super().__init__(
            env,
            eval_env,
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
        self.num_warmup_steps, self.updates_per_step = num_warmup_steps, updates_per_step
        self.every_log = Every(log_interval)
        self.storage.attach(self.env)
        self._updates = 0

    def _iterate(self) -> dict[str, float]:
        while True:
            # An interrupted run comes back here, with the updates first that it owes.
            while self._updates < int(self.updates_per_step * (self.step - self.num_warmup_steps)):
                self._check_stop()
                self._update()
            if self.step > self.iteration_start and self._iteration_ends():
                return self._mean_figures()
            self._check_stop()
            self._collect_row()

    def _collect_row(self) -> None:
        obs = self._tensors(self.obs)
        with torch.no_grad():
            if self.step < self.num_warmup_steps:
                actions = self.policy.random_actions(self.env.num_envs)  # type: ignore[operator]
            else:
                actions, _ = self.policy.act(obs)
        env_actions = actions.cpu().numpy()
        if not math.isfinite(np.add.reduce(env_actions, axis=None)):  # or the environment would be blamed
            raise NonFiniteError(f"{type(self.policy).__name__}'s actions are not finite")
        step = self.env.step(env_actions)
        self.storage.add(  # type: ignore[attr-defined]
            self.obs,
            actions,
            step.rewards,
            step.terminateds,
            step.truncateds,
            step.info,
            step.obs,
            valid=step.valid,
        )
        # What an action was taken from; an episode's last observation is no such, nor is it when it comes again.
        self.policy.observe(tree_map(lambda part: part[step.valid], obs))
        self.obs = step.obs
        self.step += int(np.count_nonzero(step.valid))
        self._count_episodes()
        self.services.progress.update(self.step, self._episode_metrics().get("train/episode_return"))

    def _update(self) -> None:
        self.algorithm.progress = min(self.step / self._budget, 1.0)
        self.storage.before_gradients(self.policy, self.algorithm)
        info = self.algorithm.update(self.storage)
        info = self.storage.after_gradients(self.policy, self.algorithm, info)
        self._updates += 1
        self._add_figures(info)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "updates": self._updates, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._updates = state["updates"]
        self._sums.update(state["sums"])
