"""The on-policy loop: fill a rollout, learn from it, forget it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from hsw.agent.base import Agent, StopRequested
from hsw.agent.extremes import finite_actions, likely_cause
from hsw.agent.protocols import Learner, RolloutMemory, RolloutPolicy
from hsw.agent.transitions import of_rollout
from hsw.errors import ConfigError
from hsw.run.checkpoint import clone_state
from hsw.seeding import get_rng_state, set_rng_state
from hsw.template import Maybe, Named, Number, template_of
from hsw.transfer import to_device


class OnPolicyAgent(Agent):
    """Collects rollouts and hands them to the algorithm (PPO, DAAC, ...). Arguments as in Parts."""

    needs: ClassVar[Mapping[str, type]] = {"policy": RolloutPolicy, "algorithm": Learner, "storage": RolloutMemory}
    policy: RolloutPolicy
    storage: RolloutMemory
    # Once before_gradients has run, the figures that came before it: an update that was undone does not run it again.
    _prepared: dict[str, float] | None = None
    _memory: Any = None  # of a policy that remembers
    _sent: tuple[Any, Any] = (None, None)  # the last observation that went to another device, and what arrived there

    def __init__(self, *args: Any, **parts: Any) -> None:
        super().__init__(*args, **parts)
        self._memory = self.policy.initial_memory(self.env.num_envs)

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Refuse settings that cannot work together, from the plain config alone.

        Raises:
            ConfigError: If a rollout cannot be split into the minibatches asked for.
        """
        storage, algorithm = config["storage"], config["algorithm"]
        num_steps, num_envs = storage.get("num_steps", storage.get("size", 0)), storage.get("num_envs", 1)
        kept = num_envs * (num_steps // 2)  # episodes may be one step long: then every second row is a reset
        parts = algorithm.get("num_mini_batch", 1)
        if parts > num_envs * num_steps:
            raise ConfigError(
                f"{num_envs * num_steps} transitions cannot make {parts} minibatches; "
                "lower algorithm.num_mini_batch or raise storage.num_steps"
            )
        if parts > kept:
            raise ConfigError(
                f"a rollout of {num_steps} steps keeps {kept} transitions where every second row is a reset, which "
                f"cannot make {parts} minibatches; lower algorithm.num_mini_batch or raise storage.num_steps"
            )
        if "sequence_length" in storage:  # with a reset after every sequence there are fewest
            length = storage["sequence_length"] or num_steps
            sequences = num_envs * -(-(num_steps - 1) // (length + 1))
            if parts > sequences:
                raise ConfigError(
                    f"a rollout of {num_steps} steps of {num_envs} environments may have no more than {sequences} "
                    f"sequences, which cannot make {parts} minibatches; lower algorithm.num_mini_batch or "
                    "storage.sequence_length"
                )

    def _iterate(self) -> dict[str, float]:
        storage, policy, algorithm = self.storage, self.policy, self.algorithm
        self._collect()
        self._clock.lap("collecting")
        # Schedules are at the value that they had when the rollout began: the first is full, and the last is not 0.
        algorithm.progress = min(self.iteration_start / self._budget, 1.0)
        if self._prepared is None:
            figures = {} if self.intrinsic_reward is None else self._add_bonus()
            storage.before_gradients(policy, algorithm)
            self._prepared = figures
        info = {**self._prepared, **self._update()}
        info = storage.after_gradients(policy, algorithm, info)
        self._prepared = None
        self._clock.lap("learning")
        self._clock.turn()
        self._show_progress()
        return {f"learn/{name}": value for name, value in info.items()}

    @property
    def owes_updates(self) -> bool:
        return self.storage.full

    def _collect(self) -> None:
        self._set_mode(False)
        self._clock.mark()
        with self.policy.acting(), torch.no_grad():
            while not self.storage.full and not self._asked():
                self._collect_row()
        self._count_episodes()
        self._agree()
        self.env.share_statistics()

    def _collect_row(self) -> None:
        elsewhere = self.device.type != "cpu"
        obs = self._sent[1] if elsewhere and self._sent[0] is self.obs else self._tensors(self.obs)
        memory = self._memory
        actions, extras = self.policy.act(obs, *((False, memory) if memory else ()))
        chosen = finite_actions(self.policy, actions.cpu().numpy())
        self._clock.mark("act")
        step = self.env.step(chosen)
        self._clock.mark("env")
        # To another device a row goes in one copy, of which next_obs is also what the policy sees next.
        next_obs, rewards, terminateds, truncateds, valid = self._tensors(step[:5]) if elsewhere else step[:5]
        row = obs if elsewhere else self.obs, actions, rewards, terminateds, truncateds, next_obs
        self.storage.add(*row, valid=valid, **extras)
        if memory:
            memory.remember(actions, *to_device((step.rewards, step.valid), self.device))
        self.obs, self._sent = step.obs, (step.obs, next_obs)
        self._count_steps(int(np.count_nonzero(step.valid)))
        self._clock.mark("store")

    def _add_bonus(self) -> dict[str, float]:
        transitions = of_rollout(self.storage)
        bonus, figures = self._bonus(transitions)
        if hasattr(self.storage, "intrinsic_rewards"):  # it has a stream of their own
            self.storage.intrinsic_rewards.copy_(bonus.view_as(self.storage.intrinsic_rewards))
        else:
            transitions.rewards.add_(bonus)  # a view of the storage's
        return figures

    def _update(self) -> dict[str, float]:
        # An update of a large network takes minutes, and a signal cannot wait for it. It is then undone, and the
        # checkpoint holds the full rollout, from which the resumed run makes the same update from its beginning.
        policy, algorithm = clone_state([self.policy.state_dict(), self.algorithm.state_dict()])
        drawn, rng = self.storage.random_state, get_rng_state()
        try:
            return self._update_policy()
        except StopRequested:
            self.policy.load_state_dict(policy)
            self.algorithm.load_state_dict(algorithm)
            self.storage.random_state = drawn
            set_rng_state(rng)
            raise

    def _cause(self, batch: dict[str, Any]) -> str:
        rollout = {name: getattr(self.storage, name, None) for name in ("rewards", "obs", "actions")}  # [T, N, ...]
        return likely_cause(rollout, env_axis=1) or super()._cause(batch)

    def _on_batch(self, batch: Any) -> Any:
        self.check_stop()
        return super()._on_batch(batch)

    def state_dict(self) -> dict[str, Any]:
        memory = {"memory": self._memory.state_dict()} if self._memory else {}
        return {**super().state_dict(), "prepared": self._prepared, **memory}

    def state_template(self) -> Any:
        memory = {"memory": template_of(self._memory.state_dict())} if self._memory else {}
        return {**super().state_template(), "prepared": Maybe(Named(Number(finite=False))), **memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._prepared = state.get("prepared")  # hsw 0.1 ran before_gradients again
        if self._memory:
            self._memory.load_state_dict(state["memory"])
