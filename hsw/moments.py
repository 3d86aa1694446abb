"""Mean and variance of a stream, a batch at a time; for NumPy arrays and tensors alike."""

from __future__ import annotations

from typing import Any


def merge(mean: Any, var: Any, count: Any, new_mean: Any, new_squares: Any, new: int) -> tuple[Any, Any, Any]:
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
