"""What the on-policy updates tell of themselves, at no cost within their loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Record:
    """Keeps what the minibatches of an update had at hand; what is told of it is computed once at the end.

    Args:
        num_mini_batch: Of an epoch. The first epoch's hold every row once.
    """

    def __init__(self, num_mini_batch: int) -> None:
        self.num_mini_batch = num_mini_batch
        self._log_ratios: list[tuple[Tensor, Tensor]] = []
        self._values: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        """Minibatches that were learnt from."""
        return len(self._log_ratios)

    def add(self, log_probs: Tensor, batch: Any) -> None:
        """A minibatch, with the log-probabilities before its step, [B]."""
        if len(self) < self.num_mini_batch:
            self._values.append((batch.values, batch.returns))
        self._log_ratios.append((log_probs.detach(), batch.log_probs))

    def metrics(self, clip_range: float) -> dict[str, float]:
        """The share of clipped ratios, the mean of the values that acted, and what they explain of the returns."""
        if not self._log_ratios:
            return {}
        new, old = (torch.cat(parts) for parts in zip(*self._log_ratios, strict=True))
        values, returns = (torch.cat(parts) for parts in zip(*self._values, strict=True))
        clipped = (((new - old).exp() - 1).abs() > clip_range).float().mean()
        told = torch.stack([clipped, values.mean(), explained_variance(values, returns)]).tolist()
        return dict(zip(("clip_fraction", "value", "explained_variance"), told, strict=True))


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R): 1 is perfect, 0 no better than a constant, and also where all returns are alike."""
    total = returns.var(unbiased=False)
    explained = 1 - (returns - values).var(unbiased=False) / total
    return torch.where(total > 0, explained, torch.zeros_like(explained))


def policy_std(policy: Any) -> dict[str, float]:
    """The mean standard deviation of a policy's actions, where it does not depend on the observation."""
    std = getattr(getattr(policy, "distribution", None), "std", None)
    return {} if std is None else {"std": float(std.mean())}
