"""Storages that draw some transitions more often than others, as off-policy algorithms know them.

A storage that wants it gives batches the fields `indices`, what it calls the transitions, and `weights`, what each
counts in a loss (Schaul et al. 2016, arXiv:1511.05952); both are optional.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def weighted(losses: Tensor, batch: Any) -> Tensor:
    """Each transition's loss by its weight in the batch, [B]; as it is where batches have none."""
    weights = getattr(batch, "weights", None)
    return losses if weights is None else losses * weights


def report_errors(storage: Any, batch: Any, errors: Tensor) -> None:
    """Tell a storage whose batches have `indices` how far off the values of each transition were, [B]."""
    indices = getattr(batch, "indices", None)
    if indices is not None:
        storage.update_priorities(indices, errors)
