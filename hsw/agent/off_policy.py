"""The off-policy loop: store every transition, learn from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from hsw.agent.base import Agent
from hsw.agent.extremes import finite_actions
from hsw.agent.protocols import Learner, ReplayMemory, ReplayPolicy
from hsw.agent.transitions import of_replay, replaced
from hsw.algorithm.intrinsic import Transitions
from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.run.services import Every
from hsw.spaces import tree_map
from hsw.template import Named, Number, StateError, Whole


class OffPolicyAgent(Agent):
    """Collects a row, then updates as often as its steps are worth (SAC, ...).

    Args:
        num_warmup_steps: Steps with random actions, before the first update.
        updates_per_step: Updates for each step after the warm-up.
        log_interval: Steps between logged rows, each the mean over its updates.
        args, parts: As in Parts.
    """

    needs: ClassVar[Mapping[str, type]] = {"policy": ReplayPolicy, "algorithm": Learner, "storage": ReplayMemory}
    policy: ReplayPolicy
    storage: ReplayMemory

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
        *args: Any,
        num_warmup_steps: Annotated[int, Range(0)] = 1000,
        updates_per_step: Annotated[float, Range(0, open_low=True)] = 1.0,
        log_interval: Annotated[int, Range(1)] = 1000,
        **parts: Any,
    ) -> None:
        super().__init__(*args, **parts)
        self.num_warmup_steps, self.updates_per_step = num_warmup_steps, updates_per_step
        self.every_log = Every(log_interval)
        self.storage.attach(self.env)
        self._updates = 0

    def _iterate(self) -> dict[str, float]:
        while True:
            # An interrupted run comes back here, with the updates first that it owes.
            while self.owes_updates:
                self.check_stop()
                self._update()
                self._clock.lap("learning")
            if self.step > self.iteration_start and self._iteration_ends():
                return {**self._mean_figures(), "storage/size": len(self.storage)}
            self.check_stop()
            self._collect_row()
            self._clock.lap("collecting")
            self._clock.turn()

    @property
    def owes_updates(self) -> bool:
        return self._updates < int(self.updates_per_step * (self.step - self.num_warmup_steps))

    def _collect_row(self) -> None:
        self._set_mode(False)
        self._clock.mark()
        obs = self._tensors(self.obs)
        with torch.no_grad():
            if self.step < self.num_warmup_steps:
                masked = self.env.observation_space.masked
                actions = self.policy.random_actions(self.env.num_envs, *((obs,) if masked else ()))
            else:
                actions, _ = self.policy.act(obs)
        chosen = actions.cpu()  # once, for the environment and for the storage, whose memory is the host's
        taken = finite_actions(self.policy, chosen.numpy())
        self._clock.mark("act")
        step = self.env.step(taken)
        self._clock.mark("env")
        row = self.obs, chosen, step.rewards, step.terminateds, step.truncateds, step.info, step.obs
        self.storage.add(*row, valid=step.valid)
        self._clock.mark("store")
        # What an action was taken from; an episode's last observation is no such, nor is it when it comes again.
        self.policy.observe(tree_map(lambda part: part[step.valid], obs))
        if self.intrinsic_reward is not None:
            rewards, terminateds, valid = map(torch.from_numpy, (step.rewards, step.terminateds, step.valid))
            seen = Transitions(obs, actions, rewards, self._tensors(step.obs), terminateds, valid)
            self.intrinsic_reward.observe(replace(seen, num_envs=self.env.num_envs, continued=True))
        self.obs = step.obs
        self.step += self._summed(int(np.count_nonzero(step.valid)))
        self._count_episodes()
        self._show_progress()

    def _update(self) -> None:
        self.algorithm.progress = min(self.step / self._budget, 1.0)
        self.storage.before_gradients(self.policy, self.algorithm)
        info = self._update_policy()
        info = self.storage.after_gradients(self.policy, self.algorithm, info)
        self._updates += 1
        self._means.add(info)

    def _on_batch(self, batch: Any) -> Any:
        self._drawn += 1
        if self.intrinsic_reward is not None:  # what is stored keeps its own reward
            bonus, figures = self._bonus(of_replay(batch), observe=False)
            batch = replaced(batch, rewards=batch.rewards + bonus)
            self._means.add(figures)
        return batch if self.augmentation is None else self._augmented(batch, "obs", "next_obs")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "updates": self._updates, **self._means.state_dict()}

    def state_template(self) -> Any:
        return {**super().state_template(), "updates": Number(0), "sums": Named(Number()), "counts": Named(Whole(1))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._updates = state["updates"]
        self._means.load_state_dict(state)
        behind = self.updates_per_step * (self.step - self.num_warmup_steps) - self._updates
        row = self.env.num_envs * self.ranks.size
        if behind > 2 + 2 * self.updates_per_step * row:  # no loop leaves more than a row's to the next
            raise StateError(f"the saved state/updates are {self._updates}, and {self.step} steps make more")
