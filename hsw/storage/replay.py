"""Off-policy memory: the last transitions of N environments, drawn uniformly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.spaces import SpaceLike, read_space, tree_map
from hsw.storage.base import Storage
from hsw.storage.batches import ReplayBatch
from hsw.storage.drawing import info_of, n_step_records
from hsw.storage.mapped import mapped_zeros
from hsw.storage.records import (
    Field,
    check_memory,
    choices_of,
    from_fields,
    part_of,
    record_dtype,
    replay_fields,
    to_fields,
)
from hsw.storage.ring import EMPTY, Ring
from hsw.storage.rows import RowWriter
from hsw.storage.templates import replay_template
from hsw.transfer import to_device


class ReplayStorage(Storage):
    """A replay (Lin 1992) of dict or array observations, any number of environments, in their own dtypes.

    An observation is kept once, because the record after a transition holds where it led; an episode's last one takes
    a place of its own. The memory is the host's, or a file on its disk, and batches go to `device`.

    Args:
        observation_space, action_space: In any form that read_space takes.
        device: Where batches go.
        storage_size: Transitions over all environments.
        num_envs: N.
        batch_size: Of sample, and of generate_batches where it is not told.
        n_step: Rewards summed before bootstrapping (Sutton & Barto 2018, chapter 7); fewer where an episode ends.
        discount: Per environment step.
        memory: "ram", or "disk" for a file in the run's folder that is mapped into memory; both give the same batches.

    Raises:
        ConfigError: If there is no such memory, or it cannot fit.
    """

    size_name = "storage_size"
    Batch: ClassVar[Any] = ReplayBatch

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
        memory: Literal["ram", "disk"] = "ram",
    ) -> None:
        super().__init__(storage_size, device, None, None)
        if memory not in ("ram", "disk"):
            raise ConfigError(f"memory={memory} does not exist; take ram or disk")
        if storage_size < num_envs:
            raise ConfigError(f"storage_size={storage_size} must be at least num_envs={num_envs}")
        self.observation_space, self.action_space = read_space(observation_space), read_space(action_space)
        self.storage_size, self.num_envs, self.batch_size = storage_size, num_envs, batch_size
        self.n_step, self.discount, self.memory = n_step, discount, memory
        self.capacity = storage_size // num_envs  # transitions of one environment
        self._spaces = {"observations": self.observation_space, "actions": self.action_space}
        self.ring: Ring | None = None
        self.seed(0)
        self._check_memory(record_dtype(self._fields({})))

    def __len__(self) -> int:
        """Transitions that may be drawn."""
        return 0 if self.ring is None else len(self.ring.ordered(self._firsts()))

    def seed(self, seed: int) -> None:
        """Seed the storage's own generator."""
        self.random = np.random.Generator(np.random.PCG64(seed))

    @property
    def random_state(self) -> Any:
        return self.random.bit_generator.state

    @random_state.setter
    def random_state(self, state: Any) -> None:
        self.random.bit_generator.state = state

    # -- storing ----------------------------------------------------------------------------------------------------

    def init_tensors(self, sample: dict[str, Any]) -> None:
        dtype = record_dtype(self._fields(sample))
        self._check_memory(dtype)
        zeros = partial(mapped_zeros, self.disk_folder) if self.memory == "disk" else np.zeros
        self.ring = Ring(self.num_envs, self.capacity, dtype, zeros)
        self._writer = RowWriter(torch.device("cpu"), self.num_envs)
        self._valid = np.zeros(self.num_envs, bool)
        row, following = self.ring.row[None], self.ring.following[None]  # as [1, N], of which the writer sets row 0
        self._row = {name: part_of(row, name, spec) for name, spec in self._spaces.items()}
        self._following = part_of(following, "observations", self.observation_space)

    def _fields(self, sample: dict[str, Any]) -> list[Field]:
        """What a record holds."""
        return replay_fields(self._spaces)

    def _check_memory(self, dtype: np.dtype) -> None:
        check_memory(self.storage_size, self.num_envs, dtype.itemsize, self.memory)

    def add(
        self,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        info: Any,
        next_observations: Any,
        *,
        valid: Any = None,
    ) -> None:
        """Store one transition of every environment.

        Args:
            observations: What the policy saw, [N, *shape] or a dict of them.
            actions: [N, *action_shape]; discrete ones [N] or [N, 1].
            rewards, terminateds, truncateds: Of the step, [N] or [N, 1].
            info: Of the step: Gymnasium's vector dict of arrays, or a list of N dicts.
            next_observations: Where the step led, also at a done.
            valid: False on reset rows, which are not stored, [N]; None means that every row is valid.
        """
        if self.ring is None:
            self.init_tensors({"observations": observations, "actions": actions, "info": info})
        assert self.ring is not None
        row, writer = self.ring.row, self._writer
        writer.write(self._row["observations"], 0, observations)
        writer.write(self._row["actions"], 0, actions)
        writer.write(self._following, 0, next_observations)
        row["rewards"] = writer.flat(rewards)
        row["terminateds"] = writer.flat(terminateds)
        row["truncateds"] = writer.flat(truncateds)
        self._write_info(info)
        envs = np.arange(self.num_envs) if valid is None else self._valid_envs(valid)
        if len(envs):
            self._store(self.ring, envs)

    def _valid_envs(self, valid: Any) -> np.ndarray:
        self._valid[:] = self._writer.flat(valid)  # one flag may tell of all
        return np.flatnonzero(self._valid)

    def insert_transition(self, sample: dict[str, Any]) -> None:
        self.add(**sample)

    def _write_info(self, info: Any) -> None:
        """Keep of info what the record has fields for."""

    def _store(self, ring: Ring, envs: np.ndarray) -> None:
        """Append the row of these envs."""
        ring.append(envs)
        dones = ring.row["terminateds"][envs] | ring.row["truncateds"][envs]
        if np.count_nonzero(dones):
            ring.end(envs[dones])

    def truncate(self) -> None:
        """Cut the episodes that are running, because their environments could not be restored."""
        if self.ring is not None and self.ring.steps.any():
            self.ring.end(np.flatnonzero(self.ring.steps))

    def sample(self, step: int = 0) -> Any:
        """One batch of batch_size transitions, drawn uniformly and with replacement.

        Args:
            step: Of the training; a uniform draw does not need it.

        Raises:
            ConfigError: If nothing is stored.
        """
        if self.ring is None:
            raise ConfigError(EMPTY)
        return self._batch(self.ring, self._draw(self.ring, self.batch_size))

    def generate_batches(
        self,
        num_mini_batch: int,
        mini_batch_size: int | None = None,
        num_epochs: int = 1,
        *args: Any,
        shuffle: bool = True,
    ) -> Iterator[Any]:
        """num_epochs * num_mini_batch batches, each drawn anew.

        Args:
            num_mini_batch: Batches per epoch.
            mini_batch_size: Transitions of each; None is batch_size.
            num_epochs: Times num_mini_batch.
            shuffle: False goes through the transitions env by env, oldest first, and round again.

        Raises:
            ConfigError: If nothing is stored, or a number is below 1.
        """
        size = self.batch_size if mini_batch_size is None else mini_batch_size
        if min(num_mini_batch, size, num_epochs) < 1:
            raise ConfigError(f"{num_epochs} x {num_mini_batch} batches of {size}: all must be 1 or more")
        if self.ring is None or (self.ring.heads == self._firsts()).all():
            raise ConfigError(EMPTY)
        return self._batches(self.ring, num_epochs * num_mini_batch, size, shuffle)

    def _batches(self, ring: Ring, count: int, size: int, shuffle: bool) -> Iterator[Any]:
        for index in range(count):
            if shuffle:
                places = self._draw(ring, size)
            else:
                places = ring.ordered(self._firsts())
                if len(places) == 0:  # it was reset since the batch before
                    raise ConfigError(EMPTY)
                places = places.take(np.arange(index * size, (index + 1) * size), mode="wrap")
            yield self.on_batch(self._batch(ring, places))

    def _draw(self, ring: Ring, size: int) -> np.ndarray:
        """Places of transitions, [size]."""
        return ring.draw(self._firsts(), size, self.random)

    def _firsts(self) -> np.ndarray:
        """The first row of each env that may be drawn."""
        assert self.ring is not None
        return self.ring.lows()

    def _batch(self, ring: Ring, places: np.ndarray, **fields: np.ndarray) -> Any:
        return self._to_batch(*n_step_records(ring, places, self.n_step, self.discount), **fields)

    def _to_batch(
        self, records: np.ndarray, following: np.ndarray, last: np.ndarray, discounts: np.ndarray, **fields: np.ndarray
    ) -> Any:
        """Tensors of records, of those that hold where they led, and of the flags of their last steps."""
        tensors = {
            "obs": part_of(records, "observations", self.observation_space),
            "actions": records["actions"],
            "rewards": records["rewards"],
            "next_obs": part_of(following, "observations", self.observation_space),
            "terminateds": last["terminateds"],
            "truncateds": last["truncateds"],
            "discounts": discounts,
        } | fields
        return self.Batch(**to_device(tensors, self.device))

    # -- the life cycle ---------------------------------------------------------------------------------------------

    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        """Nothing: transitions can be drawn as they are."""

    def after_gradients(self, actor: Any, algo: Any, info: dict[str, Any], *args: Any) -> dict[str, Any]:
        """Nothing: a replay keeps its transitions. Returns info unchanged."""
        return info

    def update(self, *args: Any) -> None:
        """Nothing: a replay keeps its transitions."""

    def reset(self) -> None:
        if self.ring is not None:
            self.ring.reset()

    def get_all_buffer_data(self, data_to_cpu: bool = False) -> dict[str, Any]:
        """Every record, env after env, oldest first. Copies.

        Returns:
            The fields that add takes, [K, ...], without next_observations: those are the next record's observations.
            env_indices, [K], and offsets, [K]: the step within its episode, -1 where only the observation counts as the
            one that the env's newest transition led to, -2 where it is an ended episode's last.
        """
        if self.ring is None:
            return {}
        records, envs = self.ring.contents()
        device = torch.device("cpu") if data_to_cpu else self.device
        fields = {**to_fields(records, self._spaces), "env_indices": envs}
        return {name: tree_map(lambda part: torch.tensor(part, device=device), part) for name, part in fields.items()}

    def insert_data_slice(self, new_data: dict[str, Any]) -> None:
        self.reset()
        if not new_data:
            return
        new = tree_map(lambda part: part.cpu().numpy(), new_data)
        if self.ring is None:
            self.init_tensors({"info": {name[5:]: part for name, part in new.items() if name.startswith("info/")}})
        assert self.ring is not None
        envs = new.pop("env_indices")
        self.ring.fill(from_fields(new, self._spaces, self.ring.memory.dtype), envs)
        self._restored(self.ring)

    def state_dict(self) -> dict[str, Any]:
        return {
            "ring": None if self.ring is None else self.ring.state_dict(),
            "random": self.random.bit_generator.state,
        }

    def state_template(self) -> Any:
        return {**super().state_template(), **replay_template(self.num_envs, self.capacity)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random.bit_generator.state = state["random"]
        if state["ring"] is None:
            self.reset()
            return
        if self.ring is None:
            self.init_tensors({"info": info_of(state["ring"])})
        assert self.ring is not None
        self.ring.load_state_dict(state["ring"], choices_of(self._spaces))
        self._restored(self.ring)

    def _restored(self, ring: Ring) -> None:
        """Derive from a ring's records what a storage knows beside them."""
