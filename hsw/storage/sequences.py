"""The rollout of policies that remember: its batches are whole sequences of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.spaces import SpaceLike, tree_map
from hsw.storage.base import gather
from hsw.storage.batches import RolloutBatch
from hsw.storage.rollout import RolloutStorage
from hsw.transfer import to_device


@dataclass(frozen=True)
class SequenceBatch(RolloutBatch):
    """The B rows of S sequences, one sequence after the other, in the order of time."""

    core: Tensor  # the policy's state before each sequence's first row, [S, D]
    lengths: Tensor  # [S]


class SequenceRolloutStorage(RolloutStorage):
    """A rollout for recurrent PPO, which also keeps the recurrent state before each row.

    Sequences end where an episode does, and begin with the state that the acting policy had there; nothing is burnt in.

    Args:
        observation_space, action_space, device, num_steps, num_envs, discount, gae_lambda: As in RolloutStorage.
        sequence_length: Longer sequences are cut into pieces of so many rows; None cuts none.
    """

    Batch = SequenceBatch
    core: Tensor  # [T, N, D]

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        device: str = "cpu",
        num_steps: Annotated[int, Range(1)] = 256,
        num_envs: Annotated[int, Range(1)] = 8,
        discount: Annotated[float, Range(0, 1)] = 0.99,
        gae_lambda: Annotated[float, Range(0, 1)] = 0.95,
        sequence_length: Annotated[int | None, Range(1)] = None,
    ) -> None:
        super().__init__(observation_space, action_space, device, num_steps, num_envs, discount, gae_lambda)
        self.sequence_length = sequence_length

    def init_tensors(self, sample: dict[str, Any]) -> None:
        super().init_tensors(sample)
        width = torch.as_tensor(sample["core"]).shape[-1]
        self.core = torch.zeros(self.num_steps, self.num_envs, width, device=self.device)
        self._view_rows()

    def add(  # type: ignore[override]
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_obs: Any,
        log_probs: Any,
        values: Any,
        core: Any,
        *,
        valid: Any = None,
    ) -> None:
        """Store one step of every environment: RolloutStorage.add's arguments, and the core before obs, [N, D]."""
        if self.obs is None:
            self.init_tensors({"core": core})
        extras = {"log_probs": log_probs, "values": values}
        t = self.step
        self._insert(obs, actions, rewards, terminateds, truncateds, next_obs, valid, extras)
        self._writer.write(self._rows["core"], t, core)

    def insert_data_slice(self, new_data: dict[str, Any]) -> None:
        if new_data and self.obs is None:
            self.init_tensors(new_data)
        super().insert_data_slice(new_data)

    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        """Value the last observation with what the actor remembers there; compute returns and advantages."""
        self._require_full()
        before, last = (tree_map(lambda part, row=row: part[row], self.obs) for row in (-2, -1))
        with torch.no_grad():
            core = actor.advance(before, self.core[-1]) * self.valid[-1].unsqueeze(-1)
            last_values = actor.value(last, core)
        self.compute_returns_and_advantages(last_values)

    def _batches(self, rows: Tensor, num_mini_batch: int, num_epochs: int, shuffle: bool) -> Iterator[Any]:
        firsts, lengths = self.sequences()
        if num_mini_batch > len(firsts):
            raise ConfigError(
                f"{len(firsts)} sequences cannot make {num_mini_batch} minibatches; lower algorithm.num_mini_batch or "
                "storage.sequence_length"
            )
        return self._sequence_batches(firsts, lengths, num_mini_batch, num_epochs, shuffle)

    def sequences(self) -> tuple[Tensor, Tensor]:
        """Where the rollout's sequences begin, as indices of [T * N], and their lengths, [S] each, by environments."""
        valid = self.valid.cpu()
        t = torch.arange(self.num_steps).unsqueeze(1).expand_as(valid)
        follows = torch.cat([torch.zeros_like(valid[:1]), valid[:-1]])
        episode = torch.where(valid & ~follows, t, 0).cummax(0).values  # where each row's stretch of episode begins
        begins = valid & ((t - episode) % (self.sequence_length or self.num_steps) == 0)
        number = begins.T.flatten().cumsum(0)[valid.T.flatten()] - 1
        places = begins.T.nonzero()
        return places[:, 1] * self.num_envs + places[:, 0], number.bincount(minlength=len(places))

    def _sequence_batches(
        self, firsts: Tensor, lengths: Tensor, num_mini_batch: int, num_epochs: int, shuffle: bool
    ) -> Iterator[Any]:
        device, per_sequence = self.rewards.device, ("core", "lengths")
        names = [name for name in self._batch_fields() if name not in per_sequence]
        flat = {name: tree_map(lambda part: part.flatten(0, 1), self._windowed(name)) for name in names}
        core = self.core.flatten(0, 1)
        for _ in range(num_epochs):
            order = torch.randperm(len(firsts), generator=self.generator) if shuffle else torch.arange(len(firsts))
            for chosen in order.tensor_split(num_mini_batch):
                size = lengths[chosen]
                step = torch.arange(int(size.sum())) - (size.cumsum(0) - size).repeat_interleave(size)
                rows = to_device(firsts[chosen].repeat_interleave(size) + step * self.num_envs, device)
                fields = {name: gather(field, rows) for name, field in flat.items()}
                begin = core.index_select(0, to_device(firsts[chosen], device))
                yield self.on_batch(self.Batch(**fields, core=begin, lengths=to_device(size, device)))
