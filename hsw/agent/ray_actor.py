"""An actor in a worker of Ray's: collects rollouts into memory of its own, and hands them back as NumPy arrays."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hsw.agent.actor import Collector, Recipe
from hsw.agent.actor_process import told
from hsw.agent.protocols import ActorMemory
from hsw.agent.publication import fill
from hsw.spaces import tree_map

PULSE = 1.0  # seconds after which a call returns, its rollouts unfinished, to tell that the actor lives


class Reply(NamedTuple):
    """What a call has brought.

    Attributes:
        life: Of the actor that answers; one that was given up may still do.
        rollouts: See rollouts_of; None where they are not yet full: the next call goes on with them.
        rows: That were stepped.
        waited: Seconds since the last call, in which there was none.
        error: What acting has raised, as a sentence and a traceback; the actor is of no use any more.
    """

    life: int
    rollouts: dict[str, Any] | None = None
    rows: int = 0
    waited: float = 0.0
    error: tuple[str, str] | None = None


class RayActor:
    """One life of one actor.

    Args:
        recipe: With a storage that is still without memory, see Recipe.elsewhere.
        seed, index, life: As in Recipe.live.
    """

    def __init__(self, recipe: Recipe, seed: int, index: int, life: tuple[int, ...]) -> None:
        self._recipe, self._place, self._life = recipe, (seed, index, life), life[-1]
        self._collector: Collector | None = None
        self._filling = False
        self._idle_since = time.monotonic()

    def here(self) -> int:
        """Answer that this actor has a process, with its life."""
        return self._life

    def collect(self, version: int, weights: np.ndarray) -> Reply:
        """Step until the rollouts are full, or for about PULSE seconds.

        Args:
            version, weights: As SharedWeights.flat gives them; for rollouts that begin with this call.
        """
        waited = time.monotonic() - self._idle_since
        try:
            return self._collect(version, weights)._replace(waited=waited)
        except BaseException as error:  # also a SystemExit, which Ray would take for a wish of ours
            return Reply(self._life, error=told(error))
        finally:
            self._idle_since = time.monotonic()

    def _collect(self, version: int, weights: np.ndarray) -> Reply:
        end, rows = time.monotonic() + PULSE, 0
        if self._collector is None:
            self._collector = self._recipe.collector(self._recipe.live(*self._place))
            self._recipe.storage.init_tensors({"init_actor_states": self._collector.initial_state})
        collector, storage = self._collector, self._recipe.storage
        if not self._filling:
            fill(collector.policy, weights)  # which stays as it is while it acts
            collector.begin(range(storage.num_storages), version)
            self._filling = True
        with collector.acting():
            while self._filling and (rows == 0 or time.monotonic() < end):
                self._filling = not collector.step()
                rows += 1
        return Reply(self._life, None if self._filling else rollouts_of(storage), rows)


def rollouts_of(storage: ActorMemory) -> dict[str, Any]:
    """All slots of a storage: its fields, [K, T + 1, ...], and the policy's states before them, each [1, K, H]."""
    states = zip(*storage.init_actor_state_storages, strict=True)
    core = tuple(np.concatenate([state.numpy() for state in parts], 1) for parts in states)
    return {"fields": tree_map(lambda block: block.numpy(), storage.storages), "core": core}


def take_over(storage: ActorMemory, slots: list[int], rollouts: dict[str, Any]) -> None:
    """Copy what rollouts_of has given into these slots of another storage."""
    for name, block in storage.storages.items():
        tree_map(lambda part, new: _copy(part, slots, new), block, rollouts["fields"][name])
    if rollouts["core"]:
        storage.set_initial_state(slots, tuple(_tensor(part) for part in rollouts["core"]))


def _copy(block: Tensor, slots: list[int], new: np.ndarray) -> None:
    block.numpy()[slots] = new


def _tensor(array: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(np.array(array))  # a copy: what Ray hands over may not be written to
