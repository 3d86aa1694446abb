"""The on-policy losses: pure functions of tensors; normalize also of the other ranks'."""

from __future__ import annotations

import torch
from torch import Tensor

from hsw.moments import std_mean


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """PPO's policy loss, -mean(min(r A, clip(r, 1 - c, 1 + c) A)) (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    Args:
        log_probs: log pi(a | s) under the current weights, [B].
        old_log_probs: Under the weights that acted, [B].
        advantages: [B].
        clip_range: c.

    Returns:
        A scalar to minimise.
    """
    ratio = (log_probs - old_log_probs).exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages).mean()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None) -> Tensor:
    """mean((V - R)^2); with a clip range, of the larger of it and the same at V held within it of the old V.

    Args:
        values: V under the current weights, [B].
        old_values: V when acting, [B].
        returns: R, [B].
        clip_range: None leaves V unclipped.

    Returns:
        A scalar to minimise.
    """
    losses = (values - returns).square()
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        losses = torch.max(losses, (clipped - returns).square())
    return losses.mean()


def normalize(advantages: Tensor) -> Tensor:
    """Zero mean and unit standard deviation over all ranks' advantages, [B]; one alone is left as it is."""
    std, mean, count = std_mean(advantages)
    return (advantages - mean) / (std + 1e-8) if count > 1 else advantages


def approximate_kl(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """KL(old || new) by the estimator (r - 1) - log r >= 0 (Schulman 2020, "Approximating KL divergence")."""
    log_ratio = (log_probs - old_log_probs).detach()
    return (log_ratio.exp() - 1 - log_ratio).mean()


def q_loss(values: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Of each transition half its squared error, [B]; "huber" goes on straight where the error is larger than 1.

    Args:
        values: Q(s, a), [B].
        targets: What they should be, [B].
        kind: "huber" or "mse".
    """
    if kind == "huber":
        return torch.nn.functional.smooth_l1_loss(values, targets, reduction="none")
    return 0.5 * (values - targets).square()
