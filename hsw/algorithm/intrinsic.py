"""Rewards that an agent gives itself for what is new."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.ranks import current
from hsw.spaces import MASK, leaves, split_mask


@dataclass(frozen=True)
class Transitions:
    """K transitions, in the same form whichever loop collected them.

    Attributes:
        obs, next_obs: What an action was taken from and where it led, [K, *shape] or a dict of them.
        actions: [K, *action_shape].
        rewards: The environment's, [K].
        terminateds: [K].
        valid: False where an environment was reset and nothing happened, [K].
        num_envs: They are [T * num_envs], one row of these environments after the other; 0 where they come in no order.
        continued: The rows go on where those of the last call ended.
    """

    obs: Any
    actions: Tensor
    rewards: Tensor
    next_obs: Any
    terminateds: Tensor
    valid: Tensor
    num_envs: int = 0
    continued: bool = False


class IntrinsicReward(ABC):
    """Rewards for transitions. A loop adds them to the environment's before it learns.

    Derive from this class and write `rewards`; the rest does nothing unless it is written too. Every collected
    transition is observed once, before its reward is asked for. OnPolicyAgent and DistributedAgent ask once for each
    transition; OffPolicyAgent asks for every batch that it draws, so that what is stored keeps its own reward.
    """

    @abstractmethod
    def rewards(self, transitions: Transitions) -> Tensor:
        """What K transitions are worth now, [K]."""

    def observe(self, transitions: Transitions) -> None:
        """Take note of transitions that were collected."""
        return

    def update(self, transitions: Transitions) -> dict[str, float]:
        """Learn from the transitions whose rewards were asked for just now. Returns figures to log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What continues it on resume: tensors and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        return


class CountBonus(IntrinsicReward):
    """coef / sqrt(n) for a transition to what has been seen n times on all ranks, this time included.

    Observations count as the same if the signs of random projections agree (SimHash; Tang et al. 2017,
    arXiv:1611.04717, section 2.2). A part `action_mask` does not count: it tells what may be done there.

    Args:
        coef: Worth of what is seen for the first time.
        bits: Number of projections; more tell more observations apart.
        seed: Of the projections.
    """

    def __init__(
        self,
        coef: Annotated[float, Range(0)] = 0.1,
        bits: Annotated[int, Range(1, 24)] = 16,
        seed: Annotated[int, Range(0)] = 0,
    ) -> None:
        self.coef, self.bits = coef, bits
        self._generator = torch.Generator().manual_seed(seed)
        self._projection: Tensor | None = None  # [D, bits], made for the first observations
        self._counts = torch.zeros(2**bits, dtype=torch.int64)

    def observe(self, transitions: Transitions) -> None:
        seen = self._codes(transitions.next_obs)[transitions.valid.cpu()]
        self._counts += torch.bincount(torch.cat(current().parts(seen)), minlength=len(self._counts))

    def rewards(self, transitions: Transitions) -> Tensor:
        counts = self._counts[self._codes(transitions.next_obs)].clamp(min=1)
        return (self.coef / counts.sqrt()).to(transitions.rewards.device)

    def _codes(self, obs: Any) -> Tensor:
        """The number of each observation's signs, [K]."""
        seen = split_mask(obs)[0] if isinstance(obs, dict) and MASK in obs else obs
        parts = [part.detach().flatten(1).float().cpu() for part in leaves(seen)]
        vectors = torch.cat(parts, 1)
        if self._projection is None:
            self._projection = torch.randn(vectors.shape[1], self.bits, generator=self._generator)
        signs = vectors @ self._projection > 0
        return (signs * 2 ** torch.arange(self.bits)).sum(1)

    def state_dict(self) -> dict[str, Any]:
        return {"projection": self._projection, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._projection = state["projection"]
        self._counts = state["counts"].clone()
