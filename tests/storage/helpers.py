"""Rollouts of vectors and discrete actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from hsw.storage import RolloutStorage
from tests.helpers import fill

OBS, ACTION = Box(-1, 1, (4,), np.float32), Discrete(3)


def rollout(num_steps: int = 4, num_envs: int = 2, **kwargs: Any) -> RolloutStorage:
    return RolloutStorage(OBS, ACTION, "cpu", num_steps, num_envs, **kwargs)


def filled(num_steps: int = 4, num_envs: int = 2, valid: torch.Tensor | None = None) -> RolloutStorage:
    """Ready for batches; valid overrides which rows are."""
    storage = rollout(num_steps, num_envs)
    fill(storage, OBS, ACTION, num_steps, num_envs)
    if valid is not None:
        storage.valid.copy_(valid)
    storage.compute_returns_and_advantages(torch.zeros(num_envs))
    return storage
