"""Mean and variance of a stream, a batch at a time; for NumPy arrays and tensors alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hsw.ranks import current


def merge(mean: Any, var: Any, count: Any, new_mean: Any, new_squares: Any, new: Any) -> tuple[Any, Any, Any]:
    """Statistics of old and new rows together (Chan et al. 1979).

    Args:
        mean, var, count: Of the old rows.
        new_mean: Of the new rows, in mean's shape.
        new_squares: Sum of the new rows' squared distances from new_mean, in mean's shape.
        new: How many there are, at least 1.

    Returns:
        mean, var and count of all.
    """
    total = count + new
    delta = new_mean - mean
    squares = var * count + new_squares + delta**2 * (count * new / total)
    return mean + delta * (new / total), squares / total, total


def told(rows: Tensor) -> Tensor:
    """What merge_ranks takes of a rank's new rows, [K, *shape]: K, their mean and their squares, [1 + 2 D], float64."""
    rows = rows.detach().double().flatten(1) if rows.dim() > 1 else rows.detach().double()[:, None]
    mean = rows.mean(0) if len(rows) else torch.zeros_like(rows[:0].sum(0))
    return torch.cat([torch.full_like(mean[:1], len(rows)), mean, (rows - mean).square().sum(0)])


def merge_ranks(mean: Any, var: Any, count: Any, parts: Any) -> tuple[Any, Any, Any]:
    """merge with the new rows of every rank, in the order of ranks, so that all ranks find the same bits.

    Args:
        mean, var, count: Of the old rows.
        parts: What each rank has told, [size, 1 + 2 D], of the same kind as mean.
    """
    for part in parts:
        if new := float(part[0]):
            new_mean, squares = part[1:].reshape(2, *mean.shape)
            mean, var, count = merge(mean, var, count, new_mean, squares, new)
    return mean, var, count


def std_mean(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """The standard deviation (unbiased) and mean of all ranks' values together, and how many they are.

    Args:
        values: This rank's, [K]; K may be another on each.
    """
    ranks = current()
    if ranks.size == 1:
        return *(torch.std_mean(values) if len(values) > 1 else (values.sum() * 0, values.sum())), len(values)
    none = torch.zeros((), dtype=torch.float64, device=values.device)
    mean, var, count = merge_ranks(none, none, 0.0, ranks.stack(told(values.flatten())))
    std = (var * (count / max(count - 1, 1))).sqrt()
    return std.to(values.dtype), mean.to(values.dtype), int(count)
