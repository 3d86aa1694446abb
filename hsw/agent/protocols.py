"""What each loop needs of a policy, an algorithm and a storage: members, not ancestors.

A class of anybody's that has the members works; hsw.network.Policy, hsw.algorithm.Algorithm and hsw.storage.Storage
give most of them to whoever derives from these. Members are methods and properties, and class variables in the place of
properties; what an instance gets when it is made cannot be seen before, and is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, Protocol

import gymnasium as gym
import torch
from torch import Tensor, nn

from hsw.env import VectorEnv
from hsw.errors import ConfigError, HswError

Env = VectorEnv | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]
EnvLike = Env | Callable[..., Env]  # an environment, or a function that makes one


class Weighted(Protocol):
    """A torch module, as far as its numbers are concerned."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def buffers(self) -> Iterator[Tensor]: ...


class ActingPolicy(Weighted, Protocol):
    """A torch module that acts (see hsw.network.Policy). Every loop needs it."""

    training: bool

    @property
    def extras(self) -> tuple[str, ...]: ...  # of the class: what act gives beside actions, and storage.add takes

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]: ...
    def initial_memory(self, num_envs: int) -> Any: ...
    def acting(self) -> AbstractContextManager[None]: ...
    def train(self, mode: bool = True) -> Any: ...
    def to(self, device: torch.device, /) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...
    def cpu(self) -> Any: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class RolloutPolicy(ActingPolicy, Protocol):
    """OnPolicyAgent's: the storage asks for the value of the last observation."""

    def value(self, obs: Any) -> Tensor: ...


class ReplayPolicy(ActingPolicy, Protocol):
    """OffPolicyAgent's: it warms up with random actions, and shows what it collected."""

    def random_actions(self, num: int) -> Tensor: ...
    def observe(self, obs: Any) -> None: ...


class ActorPolicy(ActingPolicy, Protocol):
    """DistributedAgent's: it acts with a memory of what it did last (see hsw.network.recurrent.RecurrentMemory)."""

    # For mypy the memory is anything; None acts as at an episode's start.
    def act(self, obs: Any, deterministic: bool = False, memory: Any = None) -> tuple[Tensor, dict[str, Tensor]]: ...


class Learner(Protocol):
    """An algorithm (see hsw.algorithm.Algorithm)."""

    progress: float  # the part of the run's steps that is over, in [0, 1]; the loop sets it

    def update(self, storage: Any) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Memory(Protocol):
    """A storage (see hsw.storage.Storage): the life cycle that every loop drives."""

    on_batch: Callable[[Any], Any]  # the loop sets it; every batch passes through it on its way to the algorithm
    disk_folder: Path | None  # the loop sets it: where what is too large for memory may lie

    @classmethod
    def extras(cls) -> tuple[str, ...]: ...
    def bind(self, actor: Any, algorithm: Any) -> Any: ...
    def seed(self, seed: int) -> None: ...
    def attach(self, env: Any) -> None: ...
    def truncate(self) -> None: ...
    def before_gradients(self, actor: Any, algo: Any) -> None: ...
    def generate_batches(self, num_mini_batch: int) -> Iterator[Any]: ...
    def after_gradients(self, actor: Any, algo: Any, info: dict[str, Any]) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class RolloutMemory(Memory, Protocol):
    """OnPolicyAgent's: it is full after so many rows, and an update that was undone draws its batches again."""

    @property
    def full(self) -> bool: ...
    @property
    def random_state(self) -> Any: ...
    @random_state.setter
    def random_state(self, state: Any) -> None: ...
    # obs, actions, rewards, terminateds, truncateds, next_obs; valid and the policy's extras by name
    def add(self, *args: Any, **kwargs: Any) -> None: ...


class ReplayMemory(Memory, Protocol):
    """OffPolicyAgent's: its length is how many transitions may be drawn."""

    def __len__(self) -> int: ...
    # observations, actions, rewards, terminateds, truncateds, info, next_observations; valid by name
    def add(self, *args: Any, **kwargs: Any) -> None: ...


class ActorMemory(Memory, Protocol):
    """DistributedAgent's: slots that other processes fill (see hsw.storage.DistributedStorage)."""

    num_steps: int
    num_storages: int
    batch_size: int
    storages: dict[str, Any]

    @property
    def init_actor_state_storages(self) -> list[tuple[Tensor, ...]]: ...
    def init_tensors(self, sample: dict[str, Any]) -> None: ...
    def set_initial_state(self, slots: Any, core: Any) -> None: ...
    def add(self, slot: Any, t: int, transition: dict[str, Any]) -> None: ...
    def sample(
        self, device: Any, batch_size: int, free_queue: Any, full_queue: Any, storages: Any, states: Any
    ) -> Any: ...
    def take(self, batch: Any) -> None: ...


class Pool(Protocol):
    """DistributedAgent's: actors, wherever they run, that fill the storage's slots (see hsw.agent.pool).

    It is made of a Crew (hsw.agent.seats) and lives for one training; a target's own settings come by name. It is the
    free and the full queue of ActorMemory.sample, which several threads call.
    """

    failure: HswError | None  # why there will be no more full slots, if it is not that the pool was closed

    def start(self) -> None: ...  # returns soon; what is amiss with the settings is a ConfigError
    def put(self, slot: int) -> None: ...  # a slot that was copied
    def get(self) -> int: ...  # waits for the next full slot; PoolClosed (hsw.agent.seats) if there will be none
    def publish(self) -> None: ...  # there is a new version of crew.actor.weights
    def close(self) -> None: ...  # however start and the rest went; nothing of the pool outlives it

    # Of actors: how many work now (actors), and how many were made good (restarts). Totals over all of them: rows that
    # were stepped, which tell that they live; waited, seconds without slots. Others are totals, too; what grows
    # is logged by the second.
    def statistics(self) -> Mapping[str, float]: ...


class IntrinsicRewards(Protocol):
    """Rewards that the agent gives itself (see hsw.algorithm.intrinsic)."""

    def rewards(self, transitions: Any) -> Tensor: ...
    def observe(self, transitions: Any) -> None: ...
    def update(self, transitions: Any) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Augmentation(Protocol):
    """Changes observations on their way to the algorithm (see hsw.network.augmentation)."""

    def augment(self, obs: Any) -> Any: ...


def members(protocol: type) -> list[str]:
    """The names of what a Protocol wants to be there: its methods and properties."""
    kinds = [kind for kind in protocol.__mro__ if kind not in (object, Protocol, Generic)]
    parts = {name: part for kind in kinds for name, part in vars(kind).items()}
    named = (name for name in parts if name == "__len__" or not name.startswith("_"))
    return [name for name in named if callable(parts[name]) or isinstance(parts[name], property | classmethod)]


def missing(part: Any, protocol: type) -> list[str]:
    """What a class, or an object, lacks of a Protocol's members."""
    return [name for name in members(protocol) if not hasattr(part, name)]


def require(part: Any, protocol: type, what: str) -> None:
    """Refuse an object that a loop cannot work with.

    Raises:
        ConfigError: Naming the members that are missing.
    """
    lacks = missing(part, protocol)
    if lacks:
        raise ConfigError(
            f"{type(part).__name__} cannot be the {what}: it has no {listed(lacks)} (see {protocol.__name__} in "
            f"{protocol.__module__})"
        )


def listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
