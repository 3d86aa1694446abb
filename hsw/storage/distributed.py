"""Rollouts in shared memory: actors write them, learners take them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.spaces import SpaceLike, read_space, tree_map
from hsw.storage.base import Storage
from hsw.storage.batches import DistributedBatch
from hsw.storage.rows import share
from hsw.storage.slots import Numbers, Slots, check_memory, row_layout, time_major
from hsw.storage.templates import distributed_template
from hsw.transfer import to_device

_LOCK = threading.Lock()


class DistributedStorage(Storage):
    """Slots of T + 1 rows in shared memory, one block for each field, [num_storages, T + 1, ...] (IMPALA).

    Row t holds the observation in which step t was taken, what had led to it (last_actions, last_rewards, starts) and
    the step itself; the last row's step belongs to the next rollout. The memory has no name in the file system: it is
    gone with the last process that uses it, however that ends.

    Args:
        observation_space, action_space: In any form that read_space takes.
        device: Where batches go.
        num_steps: T.
        num_storages: Slots.
        batch_size: B, rollouts in a batch.
        discount: Per environment step.
    """

    size_name = "num_steps"

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        device: str = "cpu",
        num_steps: Annotated[int, Range(1)] = 100,
        num_storages: Annotated[int, Range(1)] = 80,
        batch_size: Annotated[int, Range(1)] = 32,
        *,
        discount: Annotated[float, Range(0, 1)] = 0.99,
    ) -> None:
        super().__init__(num_steps, device, None, None)
        if batch_size > num_storages:
            raise ConfigError(f"batch_size={batch_size} must be at most num_storages={num_storages}")
        self.observation_space = read_space(observation_space)
        self.action_space = read_space(action_space)
        self.num_steps, self.num_storages, self.batch_size = num_steps, num_storages, batch_size
        self.discount = discount
        self.storages: dict[str, Any] = {}
        self.core: tuple[Tensor, ...] = ()  # the policy's state before each slot's first row, [num_storages, 1, 1, H]
        self.batch: DistributedBatch | None = None  # the one that an update is about
        self.rows = 0  # of those that insert_transition writes, slot after slot

    @classmethod
    def extras(cls) -> tuple[str, ...]:
        return ("log_probs",)

    @property
    def init_actor_state_storages(self) -> list[tuple[Tensor, ...]]:
        """The policy's initial state for each slot, a tuple of [1, 1, H]; empty tuples for one without memory."""
        if not self.core:
            return [()] * self.num_storages
        return [tuple(part[slot] for part in self.core) for slot in range(self.num_storages)]

    def init_tensors(self, sample: dict[str, Any]) -> None:
        """Allocate the blocks.

        Args:
            sample: May hold init_actor_states, the policy's state for N environments, a tuple of [1, N, H].

        Raises:
            ConfigError: If they do not fit into shared memory.
        """
        leading = self.num_storages, self.num_steps + 1
        layout = row_layout(self.observation_space, self.action_space, self.extras())
        core = [part[0, 0] for part in sample.get("init_actor_states", ())]
        states = sum(4 * part.numel() * self.num_storages for part in core)
        check_memory(Slots.num_bytes(layout, leading) + states, self.num_storages)
        self.storages = Slots(layout, leading)
        self.core = tuple(share(torch.zeros(self.num_storages, 1, 1, len(part))) for part in core)

    def __getstate__(self) -> dict[str, Any]:
        """What an actor's process gets: the blocks, and nothing that is the learner's."""
        own = ("generator", "on_batch", "batch")
        kept = {name: value for name, value in vars(self).items() if name not in own}
        return {**kept, "actor": None, "algorithm": None}

    def add(self, slot: Any, t: int, transition: dict[str, Any]) -> None:
        """Write row t of a slot, or of K slots.

        Args:
            slot: A number, or K of them.
            t: In [0, num_steps].
            transition: Some of the fields, of one environment or [K, ...].

        Raises:
            KeyError: If there is no such field.
        """
        if not isinstance(self.storages, Slots):
            self.init_tensors({})
        assert isinstance(self.storages, Slots)
        self.storages.write(slot, t, transition)

    def set_initial_state(self, slots: Sequence[int], core: tuple[Tensor, ...]) -> None:
        """Keep the policy's state before the first row of K slots, a tuple of [1, K, H]."""
        for block, part in zip(self.core, core, strict=True):
            block[list(slots), 0, 0] = part[0].detach().cpu()

    @staticmethod
    def sample(
        device: torch.device | str,
        batch_size: int,
        free_queue: Any,
        full_queue: Any,
        storages: dict[str, Any],
        init_actor_state_storages: Sequence[tuple[Tensor, ...]],
        lock: Any = _LOCK,
    ) -> DistributedBatch:
        """Wait for full slots, copy them, and free them.

        Args:
            device: Where the batch goes.
            batch_size: B.
            free_queue, full_queue: Anything with put, and get, of slots' numbers.
            storages: By name, blocks [num_storages, T + 1, ...], lists of tensors [T + 1, ...], or dicts of them.
            init_actor_state_storages: For each slot a tuple of tensors [1, 1, H]; empty for a policy without memory.
            lock: Held while one learner gathers its slots, so that several do not wait for one another's.

        Returns:
            The fields, [T + 1, B, ...], and init_actor_states.
        """
        with lock:
            slots = [full_queue.get() for _ in range(batch_size)]
        if isinstance(storages, Slots):
            batch = DistributedBatch(storages.take(slots))
        else:
            batch = DistributedBatch(tree_map(lambda block: time_major(block, slots), dict(storages)))
        states = [init_actor_state_storages[m] for m in slots] if init_actor_state_storages else []
        batch["init_actor_states"] = tuple(torch.cat(parts, 1).detach() for parts in zip(*states, strict=True))
        for slot in slots:  # copied: from here on actors may write there
            free_queue.put(slot)
        return DistributedBatch(to_device(batch, torch.device(device)))

    # -- the life cycle, within one process -------------------------------------------------------------------------

    def insert_transition(self, sample: dict[str, Any]) -> None:
        """Write one environment's next row: slot after slot, T + 1 rows each.

        Raises:
            ConfigError: If all slots are full.
        """
        slot, t = divmod(self.rows, self.num_steps + 1)
        if slot == self.num_storages:
            raise ConfigError(f"all {self.num_storages} slots are full; reset() begins again")
        self.add(slot, t, sample)
        self.rows += 1

    def take(self, batch: DistributedBatch) -> None:
        """Give a batch that sample returned to generate_batches, until after_gradients."""
        self.batch = batch

    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        """Nothing: V-trace belongs to the update, because it needs the current policy."""

    def after_gradients(self, actor: Any, algo: Any, info: dict[str, Any], *args: Any) -> dict[str, Any]:
        """Be done with the batch that was taken. Returns info unchanged."""
        self.batch = None
        return info

    def update(self, *args: Any) -> None:
        """Nothing: sample has freed the slots."""

    def generate_batches(
        self,
        num_mini_batch: int,
        mini_batch_size: int | None = None,
        num_epochs: int = 1,
        *args: Any,
        shuffle: bool = True,
    ) -> Iterator[DistributedBatch]:
        """Batches of the windows that were taken, or else of the slots that insert_transition filled, once per epoch.

        Args:
            num_mini_batch: Batches per epoch, of sizes that differ by at most one.
            mini_batch_size: None, or the largest size that num_mini_batch implies.
            num_epochs: Passes, each in a new order.
            shuffle: False keeps the order of time.

        Raises:
            ConfigError: If the windows cannot be split so.
        """
        full = self.rows // (self.num_steps + 1) if self.batch is None else self.batch["rewards"].shape[1]
        if not 1 <= num_mini_batch <= full:
            raise ConfigError(f"{full} full slots cannot make {num_mini_batch} batches")
        if mini_batch_size not in (None, -(-full // num_mini_batch)):
            raise ConfigError(f"mini_batch_size={mini_batch_size} contradicts {full} slots in {num_mini_batch} batches")
        return self._batches(full, num_mini_batch, num_epochs, shuffle)

    def _batches(self, full: int, num_mini_batch: int, num_epochs: int, shuffle: bool) -> Iterator[DistributedBatch]:
        for _ in range(num_epochs):
            if self.batch is not None and num_mini_batch == 1:  # as it was loaded: no copy
                yield self.on_batch(self.batch)
                continue
            order = torch.randperm(full, generator=self.generator) if shuffle else torch.arange(full)
            for places in order.tensor_split(num_mini_batch):
                yield self.on_batch(self._part(places))

    def _part(self, places: Tensor) -> DistributedBatch:
        """Windows of the batch that was taken, or of slots."""
        if self.batch is None:
            queue = Numbers(places.tolist())
            return self.sample(self.device, len(places), queue, queue, self.storages, self.init_actor_state_storages)
        states = self.batch["init_actor_states"]
        take = lambda part: part.index_select(1, places.to(part.device))
        part = tree_map(take, {**self.batch, "init_actor_states": {}})
        return DistributedBatch({**part, "init_actor_states": tuple(map(take, states))})

    def reset(self) -> None:
        self.rows = 0

    def get_all_buffer_data(self, data_to_cpu: bool = False) -> dict[str, Any]:
        """The slots that insert_transition has begun, [slots, T + 1, ...], and how many rows it has written. Copies."""
        if not self.storages:
            return {}
        begun = -(-self.rows // (self.num_steps + 1))
        fields = tree_map(lambda part: part[:begun].clone(), self.storages)
        core = {str(index): part[:begun].clone() for index, part in enumerate(self.core)}
        return {**fields, "core": core, "rows": torch.tensor(self.rows)}

    def insert_data_slice(self, new_data: dict[str, Any]) -> None:
        self.reset()
        if not new_data:
            return
        if not self.storages:
            self.init_tensors({"init_actor_states": tuple(part[:1, 0] for part in new_data["core"].values())})
        tree_map(lambda block, new: block[: len(new)].copy_(new.detach()), {**self.storages}, new_data)
        for block, new in zip(self.core, new_data["core"].values(), strict=True):
            block[: len(new)].copy_(new.detach())
        self.rows = int(new_data["rows"])

    def state_dict(self) -> dict[str, Any]:
        return {"data": self.get_all_buffer_data(), "generator": self.generator.get_state()}

    def state_template(self) -> Any:
        return {**super().state_template(), **distributed_template(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.insert_data_slice(state["data"])
        self.generator.set_state(state["generator"])
