"""Replay that draws transitions as often as the critics were wrong about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.spaces import SpaceLike
from hsw.storage.batches import ReplayBatch
from hsw.storage.replay import ReplayStorage
from hsw.storage.ring import EMPTY, Ring
from hsw.storage.sum_tree import SumTree
from hsw.template import Array, Maybe, Number, StateError


@dataclass(frozen=True)
class PrioritizedBatch(ReplayBatch):
    """indices are what update_priorities calls the transitions, and weights what each counts in a loss, [B] each."""

    indices: Tensor
    weights: Tensor


class PrioritizedReplayStorage(ReplayStorage):
    """Prioritised experience replay, proportional (Schaul et al. 2016, arXiv:1511.05952).

    A transition is drawn with probability p^alpha / sum p^alpha, where p is the critics' last absolute error about it;
    a batch is drawn from equal parts of that sum. A new transition has the largest p that there has been. With n_step
    the error is that of the n-step target.

    Args:
        observation_space, action_space, device, storage_size, num_envs, batch_size, n_step, discount: As in
            ReplayStorage.
        alpha: 0 draws uniformly.
        beta, beta_end: Importance weights are (size * probability)^-beta, over the largest of the batch; beta goes from
            the first to the second along a straight line over the run's steps.
        min_priority: Added to p, so that nothing is never drawn again.

    Raises:
        ConfigError: If it cannot fit in memory.
    """

    Batch: ClassVar[Any] = PrioritizedBatch

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        device: str = "cpu",
        storage_size: Annotated[int, Range(1)] = 1_000_000,
        num_envs: Annotated[int, Range(1)] = 1,
        batch_size: Annotated[int, Range(1)] = 256,
        n_step: Annotated[int, Range(1)] = 1,
        discount: Annotated[float, Range(0, 1)] = 0.99,
        alpha: Annotated[float, Range(0)] = 0.6,
        beta: Annotated[float, Range(0, 1)] = 0.4,
        beta_end: Annotated[float, Range(0, 1)] = 1.0,
        min_priority: Annotated[float, Range(0, open_low=True)] = 1e-6,
        memory: Literal["ram", "disk"] = "ram",
    ) -> None:
        sizes = storage_size, num_envs, batch_size
        super().__init__(observation_space, action_space, device, *sizes, n_step, discount, memory)
        self.alpha, self.beta, self.beta_end, self.min_priority = alpha, beta, beta_end, min_priority
        self.largest = 1.0  # of the priorities so far, to the power alpha

    def init_tensors(self, sample: dict[str, Any]) -> None:
        super().init_tensors(sample)
        assert self.ring is not None
        self._tree = SumTree(len(self.ring.memory))  # 0 where no transition stands

    def _store(self, ring: Ring, envs: np.ndarray) -> None:
        here = ring.places(envs, ring.heads[envs])
        self._tree.set(ring.moved(here, 1), 0.0)  # where it led to: what stood there is gone
        self._tree.set(here, self.largest)
        super()._store(ring, envs)

    def _draw(self, ring: Ring, size: int) -> np.ndarray:
        if self._tree.total == 0.0:
            raise ConfigError(EMPTY)
        return self._tree.draw((np.arange(size) + self.random.random(size)) / size)

    def _batch(self, ring: Ring, places: np.ndarray, **fields: np.ndarray) -> Any:
        priorities = self._tree.values[places]
        weights = (priorities / priorities.min()) ** -self.present_beta
        return super()._batch(ring, places, indices=places, weights=weights.astype(np.float32), **fields)

    @property
    def present_beta(self) -> float:
        """beta at this point of the run, of which the algorithm knows."""
        return self.beta + (self.beta_end - self.beta) * float(getattr(self.algorithm, "progress", 0.0))

    @staticmethod
    def follows_budget(options: Mapping[str, Any]) -> list[str]:
        """Which of its options make it do otherwise at the same step of a longer run."""
        return ["beta_end"] if options.get("beta") != options.get("beta_end") else []

    def update_priorities(self, indices: Tensor, values: Tensor) -> None:
        """Take note of absolute errors, [B], about the transitions that a batch called so, [B]."""
        priorities = (values.detach().double().cpu().numpy() + self.min_priority) ** self.alpha
        self._tree.set(indices.cpu().numpy(), priorities)
        self.largest = max(self.largest, float(priorities.max()))

    def reset(self) -> None:
        super().reset()
        if self.ring is not None:
            self._tree.fill(np.zeros(self._tree.size))

    # -- saving -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        priorities = None if self.ring is None else torch.from_numpy(self._tree.values.copy())
        return {**super().state_dict(), "priorities": priorities, "largest": self.largest}

    def state_template(self) -> Any:
        size = self.num_envs * (self.capacity + 1)
        own = {"priorities": Maybe(Array((size,), torch.float64, low=0.0)), "largest": Number(0)}
        return {**super().state_template(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.largest = state["largest"]
        if self.ring is not None:
            priorities = state["priorities"].numpy()
            stands = np.zeros(len(priorities), bool)
            stands[self.ring.ordered(self._firsts())] = True
            if not np.array_equal(stands, priorities > 0):
                raise StateError("the saved storage/priorities are not those of the transitions that it holds")
            self._tree.fill(priorities)

    def _restored(self, ring: Ring) -> None:
        """Every transition is as new; a checkpoint's priorities follow."""
        self._tree.fill(np.zeros(self._tree.size))
        self._tree.set(ring.ordered(self._firsts()), self.largest)
