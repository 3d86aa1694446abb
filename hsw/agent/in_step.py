"""What keeps the loops of several ranks in step, see hsw.ranks."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from hsw.errors import ConfigError
from hsw.ranks import Ranks

_SAME = 1e-5


def require_equal(ranks: Ranks, policy: Any, facts: dict[str, Any]) -> None:
    """Refuse to train what is not the same on every rank: it would drift apart unseen.

    Args:
        ranks: All of them call this.
        policy: Its parameters and buffers.
        facts: Plain values by name: where the loops are.

    Raises:
        ConfigError: On every rank, naming the first that differs from rank 0, and in what.
    """
    if ranks.size == 1:
        return
    digest = hashlib.sha256()
    for name, value in policy.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    first, *others = ranks.exchange({"the networks' weights": digest.hexdigest(), **facts})
    for rank, other in enumerate(others, 1):
        differing = [name for name in first if other.get(name) != first[name]]
        if differing:
            name = differing[0]
            values = "" if name not in facts else f" ({other.get(name)} and {first[name]})"
            raise ConfigError(
                f"{name} of rank {rank} and rank 0 differ{values}; all ranks begin with one seed, config and checkpoint"
            )


def require_reduced(ranks: Ranks, policy: Any, algorithm: Any) -> None:
    """Refuse an algorithm whose first updates have taken the ranks' weights apart.

    Raises:
        ConfigError: On every rank.
    """
    if ranks.size == 1:
        return
    own = torch.cat([parameter.detach().flatten().float() for parameter in policy.parameters()])
    apart = float((own - ranks.broadcast_(own.clone())).abs().max())
    if ranks.any(apart > _SAME):
        raise ConfigError(
            f"the ranks' weights differ after {type(algorithm).__name__}'s first updates: its gradients are each "
            "rank's own; use Algorithm.descend, or hsw.ranks.current().weighted_mean, or train with one rank"
        )


def average_batch_norm(ranks: Ranks, policy: Any) -> None:
    """Give every rank the mean of all ranks' running statistics of batch norm: each has normalised by its own batches.

    Args:
        ranks: All of them call this after an update.
        policy: Its modules.
    """
    if ranks.size == 1:
        return
    norms = (module for module in policy.modules() if isinstance(module, nn.modules.batchnorm._NormBase))
    statistics = [part for norm in norms for part in (norm.running_mean, norm.running_var) if part is not None]
    if statistics:
        means = ranks.mean_(torch.cat([part.flatten() for part in statistics]))
        for part, mean in zip(statistics, torch.split(means, [part.numel() for part in statistics]), strict=True):
            part.copy_(mean.view_as(part))


def over_ranks(ranks: Ranks, metrics: dict[str, float], counts: dict[str, int]) -> dict[str, float]:
    """A row of metrics over all ranks, the same on each: means, and of train/episodes the sum.

    Args:
        ranks: All of them call this.
        metrics: This rank's row; the others' may have other names.
        counts: What a figure of this rank's counts in the mean, where that is not 1: its episodes.
    """
    if ranks.size == 1:
        return metrics
    told = ranks.exchange({name: [float(value), counts.get(name, 1)] for name, value in metrics.items()})
    merged: dict[str, float] = {}
    for name in dict.fromkeys(name for row in told for name in row):
        rows = [row[name] for row in told if name in row]
        total = sum(value * count for value, count in rows)
        merged[name] = int(total) if name == "train/episodes" else total / sum(count for _, count in rows)
    return merged
