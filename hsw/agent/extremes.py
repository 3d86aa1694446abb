"""Numbers so large that float32 does not hold what becomes of them: which of a batch's they are, and whose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.errors import NonFiniteError

_EXTREME = 1e10  # squares of squares of more than this are infinite in float32
_NAMES = {"rewards": "rewards", "obs": "observations", "next_obs": "observations", "actions": "actions"}


def likely_cause(fields: Mapping[str, Any], env_axis: int | None = None) -> str:
    """What of that which went into an update is extreme, in words for the end of a sentence; empty if nothing is.

    Args:
        fields: Tensors by name, or dicts of them; those of rewards, obs, next_obs and actions are looked at.
        env_axis: Along which environments are told apart.
    """
    for name, noun in _NAMES.items():
        parts = fields.get(name)
        for key, part in (parts if isinstance(parts, dict) else {"": parts}).items():
            found = _extreme(part, env_axis)
            if found:
                return f"; the {noun}{f' {key!r}' if key else ''}, {found}, are the likely cause"
    return ""


def _extreme(part: Any, env_axis: int | None) -> str:
    if not isinstance(part, Tensor | np.ndarray):
        return ""
    values = torch.as_tensor(part).detach().cpu()
    if not values.is_floating_point() or not values.numel():
        return ""
    values = values.double()
    sizes = values.abs().nan_to_num(math.inf)
    if float(sizes.max()) < _EXTREME:
        return ""
    index = np.unravel_index(int(sizes.argmax()), values.shape)
    where = f" (environment {index[env_axis]})" if env_axis is not None and env_axis < values.ndim else ""
    if not bool(torch.isfinite(values).all()):
        return f"some of which are NaN or infinite{where}"
    return f"which go from {float(values.min()):g} to {float(values.max()):g}{where}"


def finite_actions(policy: Any, actions: np.ndarray) -> np.ndarray:
    """A policy's actions for its environments, which would be blamed for what comes of a NaN.

    Raises:
        NonFiniteError: If they hold one.
    """
    if (
        actions.dtype.kind == "f"
        and not math.isfinite(np.add.reduce(actions, axis=None))
        and not np.isfinite(actions).all()
    ):
        raise NonFiniteError(f"{type(policy).__name__}'s actions are not finite")
    return actions
