"""Algorithms, storages and policies that are right but for one thing each, which FAULTS names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from hsw.algorithm import A2C, DQN, PPO, Algorithm
from hsw.network import ActorCritic
from hsw.storage import ReplayStorage, RolloutStorage


class Plain(Algorithm):
    """A policy gradient with nothing wrong."""

    policy_type, storage_type = ActorCritic, RolloutStorage

    def __init__(self, policy: Any, lr: float = 1e-2) -> None:
        super().__init__(policy)
        self.lr, self.scale, self.parameters = lr, 1.0, list(policy.parameters())

    def make_optimizer(self, name: str = "all") -> Any:
        return self.optimizer(name, self.parameters, self.lr)

    def update(self, storage: Any) -> dict[str, float]:
        self.num_updates += 1
        for batch in storage.generate_batches(1, None):
            log_probs, entropies, values = self.policy.evaluate(batch.obs, batch.actions)
            loss = -(log_probs * self.weigh(batch.advantages)).mean() + self.value_loss(values, batch.returns)
            self.descend(self.make_optimizer(), self.scale * loss - 0.01 * entropies.mean(), 0.5, batch)
        return {"loss": float(loss.detach())}

    def weigh(self, advantages: Any) -> Any:
        return advantages

    def value_loss(self, values: Any, returns: Any) -> Any:
        return (values - returns).square().mean()


class DetachedValues(Plain):
    def value_loss(self, values: Any, returns: Any) -> Any:
        return super().value_loss(values.detach(), returns)


class ForgottenHead(ActorCritic):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.novelty = nn.Linear(4, 1)


class RunningScale(Plain):
    """Weighs advantages by a mean that state_dict does not hold."""

    mean = 1.0

    def weigh(self, advantages: Any) -> Any:
        self.mean = 0.5 * self.mean + 0.5 * float(advantages.abs().mean())
        return advantages / self.mean


class GlobalCount(Plain):
    """Counts in its class what no state holds."""

    count = 0

    def weigh(self, advantages: Any) -> Any:
        GlobalCount.count += 1
        return advantages / GlobalCount.count


class WarmRewards(RolloutStorage):
    """Scales rewards by the largest that it has seen, and does not save it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.largest = 1.0

    def add(self, obs: Any, actions: Any, rewards: Any, *rest: Any, **kwargs: Any) -> None:
        self.largest = max(self.largest, float(np.abs(rewards).max()))
        super().add(obs, actions, rewards / self.largest, *rest, **kwargs)


class CountingPolicy(ActorCritic):
    """What it computes depends on how often it was asked, in a plain attribute."""

    asked = 0

    def value(self, obs: Any) -> Any:
        self.asked += 1
        return super().value(obs) * (1 + 0.1 * (self.asked % 3))


class EntropyUpdates(Plain):
    def weigh(self, advantages: Any) -> Any:
        return advantages + torch.from_numpy(np.random.default_rng().normal(size=len(advantages))).float()


class TruncationEnds(RolloutStorage):
    """Takes a truncation for a termination."""

    def add(
        self, obs: Any, actions: Any, rewards: Any, terminateds: Any, truncateds: Any, *rest: Any, **kw: Any
    ) -> None:
        super().add(obs, actions, rewards, terminateds | truncateds, truncateds, *rest, **kw)


class NextEpisodeLeaks(RolloutStorage):
    """Takes every row for one of an endless episode."""

    def compute_returns_and_advantages(self, last_values: Any) -> None:
        valid = self.valid.clone()
        self.valid[:] = True
        truncateds, self.truncateds = self.truncateds, torch.zeros_like(self.truncateds)
        super().compute_returns_and_advantages(last_values)
        self.truncateds = truncateds
        self.valid.copy_(valid)


class ResetRows(RolloutStorage):
    """Learns from rows that are resets."""

    def add(self, *args: Any, valid: Any = None, **kwargs: Any) -> None:
        super().add(*args, valid=np.ones(self.num_envs, bool), **kwargs)


class FirstEnvOnly(RolloutStorage):
    def before_gradients(self, *args: Any) -> None:
        super().before_gradients(*args)
        self.valid[:, 1:] = False


class ShiftedActions(RolloutStorage):
    def before_gradients(self, *args: Any) -> None:
        super().before_gradients(*args)
        self.actions.copy_(self.actions.roll(1, 0))


class OthersObs(ReplayStorage):
    """Where a step was truncated, keeps what another environment shows as where it led."""

    def add(self, obs: Any, actions: Any, rewards: Any, ends: Any, cuts: Any, info: Any, led: Any, **kw: Any) -> None:
        led = np.where(np.asarray(cuts)[:, None], np.roll(led, 1, 0), led)
        super().add(obs, actions, rewards, ends, cuts, info, led, **kw)


class CutEnds(DQN):
    """Values nothing after a truncation."""

    def update(self, storage: Any) -> dict[str, float]:
        original = storage.generate_batches

        def cut(*args: Any, **kwargs: Any) -> Any:
            from dataclasses import replace

            for batch in original(*args, **kwargs):
                yield replace(batch, terminateds=batch.terminateds | batch.truncateds)

        storage.generate_batches = cut
        try:
            return super().update(storage)
        finally:
            storage.generate_batches = original


class ZeroVariance(Plain):
    def weigh(self, advantages: Any) -> Any:
        return (advantages - advantages.mean()) / advantages.std()


class Overflows(Plain):
    def weigh(self, advantages: Any) -> Any:
        return advantages.exp()


class NoSingleAction(PPO):
    """Divides by the entropy that there can be."""

    def critic_loss(self, values: Any, batch: Any) -> Any:
        return super().critic_loss(values, batch) / torch.tensor(float(self.policy.distribution.params_dim)).log()


class RowsMixed(ActorCritic):
    """Acts on what differs from the mean of the batch."""

    def act(self, obs: Any, deterministic: bool = False) -> Any:
        return super().act(obs - obs.mean(0), deterministic)


class ChangesInAct(ActorCritic):
    """Keeps a mean of what it sees, in evaluations too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("mean", torch.zeros(4))

    def act(self, obs: Any, deterministic: bool = False) -> Any:
        self.mean.lerp_(obs.mean(0), 0.1)
        return super().act(obs - self.mean, deterministic)


class TensorFigures(A2C):
    def update(self, storage: Any) -> dict[str, float]:
        return {**super().update(storage), "ratio": float("nan")}


# The kind of finding that each must bring, what it must name, the check, and further overrides.
FAULTS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "DetachedValues": ("dead-parameters", "value", "gradients", ()),
    "ForgottenHead": ("dead-parameters", "novelty.weight", "gradients", ()),
    "RunningScale": ("lost-on-resume", "RunningScale.mean", "resume", ()),
    "GlobalCount": ("lost-on-resume", "GlobalCount.count", "resume", ()),
    "WarmRewards": ("lost-on-resume", "WarmRewards.largest", "resume", ()),
    "CountingPolicy": ("lost-on-resume", "CountingPolicy.asked", "resume", ()),
    "EntropyUpdates": ("not-repeatable", "EntropyUpdates.update", "repeats", ()),
    "TruncationEnds": ("truncation", "TruncationEnds", "truncation", ()),
    "NextEpisodeLeaks": ("truncation", "NextEpisodeLeaks", "truncation", ()),
    "CutEnds": ("truncation", "CutEnds.update", "truncation", ("agent=dqn",)),
    "ResetRows": ("learns-from-resets", "ResetRows", "transitions", ()),
    "FirstEnvOnly": ("unused-environments", "environment 1", "transitions", ()),
    "ShiftedActions": ("mixed-transitions", "ShiftedActions", "transitions", ()),
    "OthersObs": ("leak-across-episodes", "OthersObs", "transitions", ("agent=dqn",)),
    "ZeroVariance": ("not-finite", "rewards that are all 0", "edges", ()),
    "Overflows": ("not-finite", "rewards of a million", "edges", ()),
    "NoSingleAction": ("not-finite", "with a single action", "edges", ()),
    "RowsMixed": ("rows-mixed", "RowsMixed.act", "policy", ()),
    "ChangesInAct": ("evaluation-changes", "ChangesInAct.act", "repeats", ()),
    "TensorFigures": ("figures", "ratio", "figures", ("agent=a2c",)),
}
