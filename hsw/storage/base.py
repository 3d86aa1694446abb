"""The life cycle that every storage implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hsw.device import device_of, resolve_device
from hsw.spaces import tree_map
from hsw.template import template_of


class Storage(ABC):
    """Memory between acting and learning.

    One cycle: insert_transition (or add) for each row, before_gradients, generate_batches while the algorithm learns,
    after_gradients. A storage never calls the agent, and draws random numbers from its own generator only.

    Args:
        size: Number of rows (a rollout's num_steps, a replay's transitions).
        device: Where the tensors live.
        actor: The policy, for values that the storage needs (None: bound later).
        algorithm: The algorithm that learns from it (None: bound later).
    """

    def __init__(self, size: int, device: torch.device | str, actor: Any, algorithm: Any, *args: Any) -> None:
        self.size = size
        self.device = resolve_device(device)
        self.actor = actor
        self.algorithm = algorithm
        self.generator = torch.Generator()  # on the CPU: an order of indices that is the same on every device
        self.generator.manual_seed(0)
        self.disk_folder: Path | None = None  # a loop's: where what is too large for memory may lie
        # A loop's: generate_batches hands every batch through it.
        self.on_batch: Callable[[Any], Any] = lambda batch: batch

    @classmethod
    def create_factory(cls, size: int, *args: Any, **kwargs: Any) -> Callable[..., Storage]:
        """A function make(device, actor, algorithm) that constructs the storage and binds it.

        Args:
            size: The storage's size.
            args: observation_space, action_space, then whatever the constructor takes after its size.
            kwargs: Constructor arguments by name.
        """
        spaces, rest = args[:2], args[2:]

        def make(device: torch.device | str, actor: Any, algorithm: Any) -> Storage:
            # Every concrete constructor begins (observation_space, action_space, device, size).
            positional = (*spaces, device, size, *rest) if len(spaces) == 2 else (*spaces,)
            named = kwargs if len(spaces) == 2 else {**kwargs, "device": device, cls.size_name: size}
            return cls(*positional, **named).bind(actor, algorithm)

        return make

    # The constructor's name for its size.
    size_name = "num_steps"

    def bind(self, actor: Any, algorithm: Any) -> Storage:
        """Attach the policy and the algorithm, and go to the device where the policy is. Returns self."""
        self.actor, self.algorithm = actor, algorithm
        device = device_of(actor)
        if device not in (None, self.device):
            self.to(device)
        return self

    def to(self, device: torch.device | str) -> None:
        """Hand out batches there from now on; a storage that keeps its rows there takes them along."""
        self.device = resolve_device(device)

    def attach(self, env: Any) -> None:
        """Take from the environment the functions that the storage needs; most need none."""
        return

    def truncate(self) -> None:
        """Cut the episodes that are running, because their environments could not be restored."""
        return

    def seed(self, seed: int) -> None:
        """Seed the storage's own generator."""
        self.generator.manual_seed(seed)

    @property
    def random_state(self) -> Any:
        """Where the storage's own generator is; set, the same draws come again."""
        return self.generator.get_state()

    @random_state.setter
    def random_state(self, state: Any) -> None:
        self.generator.set_state(state)

    def update_priorities(self, indices: Tensor, values: Tensor) -> None:
        """Be told how far off an algorithm was on transitions that it learnt from.

        Algorithms tell a storage whose batches have a field `indices`; most have none.

        Args:
            indices: The batch's, [B].
            values: Absolute errors, [B].
        """
        return

    @classmethod
    def extras(cls) -> tuple[str, ...]:
        """The fields of a transition that the policy contributes, beside its actions."""
        return ()

    @abstractmethod
    def init_tensors(self, sample: dict[str, Any]) -> None:
        """Allocate memory for rows like this sample, a dict of [N, ...] values."""

    @abstractmethod
    def insert_transition(self, sample: dict[str, Any]) -> None:
        """Store one row, a dict of [N, ...] values with the names that add takes."""

    @abstractmethod
    def insert_data_slice(self, new_data: dict[str, Any]) -> None:
        """Replace what is stored by new_data, in the form of get_all_buffer_data."""

    @abstractmethod
    def get_all_buffer_data(self, data_to_cpu: bool = False) -> dict[str, Any]:
        """Everything stored, by field name; on the CPU if asked."""

    @abstractmethod
    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        """Called when the data is complete and before the algorithm draws batches."""

    @abstractmethod
    def after_gradients(self, actor: Any, algo: Any, info: dict[str, Any], *args: Any) -> dict[str, Any]:
        """Called after the algorithm's update. Returns info, possibly with the storage's own figures."""

    @abstractmethod
    def generate_batches(
        self, num_mini_batch: int, mini_batch_size: int | None, num_epochs: int = 1, *args: Any, shuffle: bool = True
    ) -> Iterator[Any]:
        """Batches with named fields, each as self.on_batch gives it back."""

    @abstractmethod
    def reset(self) -> None:
        """Forget what is stored; memory stays allocated."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The contents and the generator, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned."""

    def state_template(self) -> Any:
        """What a saved state must look like. A storage that does not say so takes any number of rows and of items."""
        return template_of(self.state_dict(), vary=True)

    def update_storage_parameter(self, parameter_name: str, new_parameter_value: Any) -> None:
        """Set an attribute of the storage, or of its algorithm.

        Raises:
            AttributeError: If neither has it.
        """
        for owner in (self, self.algorithm):
            if owner is not None and not parameter_name.startswith("_") and hasattr(owner, parameter_name):
                setattr(owner, parameter_name, new_parameter_value)
                return
        raise AttributeError(f"neither {type(self).__name__} nor its algorithm has a parameter {parameter_name!r}")


def gather(source: Any, indices: Tensor) -> Any:
    """Rows of a [K, ...] tensor, or of every part of a dict: a copy of their bytes and no more."""
    return tree_map(lambda part: part.index_select(0, indices), source)
