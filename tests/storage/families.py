"""What the life-cycle tests must know of a storage's kind: how its rows are made and what its batches give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete

from hsw.spaces import space_config, tree_map
from hsw.storage import DistributedStorage, HerReplayStorage, ReplayStorage, SequenceRolloutStorage, Storage
from tests.helpers import ACTION_SPACES, OBS_SPACES, draw, tensors, transition

NUM_STEPS, NUM_ENVS = 5, 3
GOAL = Box(-1, 1, (2,), np.float32)
GOAL_SPACES = {
    "goals": Dict({"observation": OBS_SPACES["box"], "achieved_goal": GOAL, "desired_goal": GOAL}),
    "cells": Dict({"observation": OBS_SPACES["dict"], "achieved_goal": Discrete(9), "desired_goal": Discrete(9)}),
}
ACTOR = SimpleNamespace(value=lambda obs, *core: torch.full((NUM_ENVS,), 7.0), advance=lambda obs, core: core)


def negative_distance(achieved: Any, desired: Any, info: Any) -> Any:
    return -np.abs(achieved - desired).reshape(len(achieved), -1).sum(-1)


class Rollouts:
    size = NUM_STEPS
    obs_spaces: ClassVar[dict[str, gym.Space]] = OBS_SPACES
    arguments: ClassVar[dict[str, Any]] = {"num_envs": NUM_ENVS, "discount": 0.5}  # those that follow the size
    required: ClassVar[dict[str, Any]] = {"num_envs": NUM_ENVS}
    width = NUM_ENVS  # transitions in a row
    mini_batch_size = NUM_STEPS  # of NUM_ENVS minibatches

    def __init__(self, kind: type[Storage]) -> None:
        self.kind = kind

    def make(self, spaces: Any, **kwargs: Any) -> Any:
        factory = self.kind.create_factory(self.size, *spaces, **self.required, **kwargs)
        return factory("cpu", ACTOR, SimpleNamespace(lr=0.1))

    def rows(self, obs: str, action: str, count: int = NUM_STEPS) -> list[dict[str, Any]]:
        """Rows as add takes them."""
        spaces = self.obs_spaces[obs], ACTION_SPACES[action]
        return [transition(self.kind, *spaces, NUM_ENVS, t) for t in range(count)]

    def add(self, storage: Any, row: dict[str, Any]) -> None:
        storage.add(**row)

    def fields(self, batch: Any) -> dict[str, Any]:
        """Of a batch, [B, ...] each."""
        return vars(batch)

    def names(self, fields: dict[str, Any]) -> list[tuple[int, int]]:
        """Step and env of each transition of a batch."""
        return [divmod(name, 100) for name in fields["log_probs"].int().tolist()]

    def expected(self, rows: list[dict[str, Any]], t: int, n: int) -> dict[str, Any]:
        """What a batch must hold for env n of row t; returns and advantages are tested where they are computed."""
        return {name: of_env(rows[t][name], n) for name in ("obs", "actions", *self.kind.extras())}

    def count(self, storage: Any) -> int:
        """Transitions stored."""
        return storage.get_all_buffer_data()["rewards"].numel()


class Sequences(Rollouts):
    def rows(self, obs: str, action: str, count: int = NUM_STEPS) -> list[dict[str, Any]]:
        rows = super().rows(obs, action, count)
        return [{**row, "core": torch.stack([row["core"], -row["core"]], -1)} for row in rows]

    def expected(self, rows: list[dict[str, Any]], t: int, n: int) -> dict[str, Any]:
        expected = super().expected(rows, t, n)
        expected.pop("core")  # one for each sequence: tests/storage/test_sequences.py
        return expected


class Replays(Rollouts):
    size = (NUM_STEPS + 1) * NUM_ENVS
    arguments: ClassVar[dict[str, Any]] = {"num_envs": NUM_ENVS, "batch_size": 7}

    def rows(self, obs: str, action: str, count: int = NUM_STEPS) -> list[dict[str, Any]]:
        rows = [transition(self.kind, self.obs_spaces[obs], ACTION_SPACES[action], NUM_ENVS, t) for t in range(count)]
        for t, row in enumerate(rows):
            row["observations"], row["next_observations"] = row.pop("obs"), row.pop("next_obs")
            row["rewards"], row["info"] = (100 * t + np.arange(NUM_ENVS)).astype(np.float32), {}
        return rows

    def names(self, fields: dict[str, Any]) -> list[tuple[int, int]]:
        return [divmod(name, 100) for name in fields["rewards"].int().tolist()]

    def expected(self, rows: list[dict[str, Any]], t: int, n: int) -> dict[str, Any]:
        names, row = ("actions", "rewards", "terminateds", "truncateds"), rows[t]
        observations = {"obs": of_env(row["observations"], n), "next_obs": of_env(row["next_observations"], n)}
        return {**observations, **{name: of_env(row[name], n) for name in names}, "discounts": torch.tensor(0.99)}

    def count(self, storage: Any) -> int:
        return int((storage.get_all_buffer_data()["offsets"] >= 0).sum())


class HerReplays(Replays):
    obs_spaces: ClassVar[dict[str, gym.Space]] = GOAL_SPACES
    required: ClassVar[dict[str, Any]] = {"num_envs": NUM_ENVS, "reward_fn": negative_distance}


class Slots(Rollouts):
    """NUM_ENVS slots of NUM_STEPS rows; a row is one environment's, and they come slot after slot."""

    size = NUM_STEPS - 1
    arguments: ClassVar[dict[str, Any]] = {"num_storages": NUM_ENVS, "batch_size": 2}
    required: ClassVar[dict[str, Any]] = arguments
    width = mini_batch_size = 1

    def rows(self, obs: str, action: str, count: int = NUM_STEPS) -> list[dict[str, Any]]:
        return [self._row(obs, action, t, n) for n in range(NUM_ENVS) for t in range(count)]

    def _row(self, obs: str, action: str, t: int, n: int) -> dict[str, Any]:
        first = lambda space, seed: tree_map(lambda part: part[0], draw(space, 1, seed))
        seed = 10 * n + t
        return {
            "obs": first(self.obs_spaces[obs], seed),
            "actions": first(ACTION_SPACES[action], seed + 1000),
            "last_actions": first(ACTION_SPACES[action], seed + 999),
            "rewards": np.float32(seed),
            "starts": t == 0,
            "log_probs": np.float32(100 * t + n),
        }

    def add(self, storage: Any, row: dict[str, Any]) -> None:
        storage.insert_transition(row)  # add takes the place too, and another process counts

    def fields(self, batch: Any) -> dict[str, Any]:
        return {name: tree_map(lambda part: part.flatten(0, 1), batch[name]) for name in batch if name[:4] != "init"}

    def expected(self, rows: list[dict[str, Any]], t: int, n: int) -> dict[str, Any]:
        return {name: tensors(value) for name, value in rows[n * NUM_STEPS + t].items()}

    def count(self, storage: Any) -> int:
        return int(storage.get_all_buffer_data()["rows"])


def family(kind: type[Storage]) -> Rollouts:
    families = {
        HerReplayStorage: HerReplays,
        ReplayStorage: Replays,
        DistributedStorage: Slots,
        SequenceRolloutStorage: Sequences,
        Storage: Rollouts,
    }
    return next(found(kind) for base, found in families.items() if issubclass(kind, base))


def of_env(batched: Any, n: int) -> Any:
    return tree_map(lambda part: part[n], tensors(batched))


_MINIMAL = {
    "box": {"shape": (4,)},
    "image": {"shape": (3, 36, 36)},
    "dict": {"spaces": {"vector": {"shape": (4,)}, "nested": {"spaces": {"image": {"shape": (3, 12, 12)}}}}},
    "goals": {
        "spaces": {"observation": {"shape": (4,)}, "achieved_goal": {"shape": (2,)}, "desired_goal": {"shape": (2,)}}
    },
}
_MINIMAL_ACTIONS = {
    "discrete": {"shape": (3,), "type": "Discrete", "range": [0, 2]},
    "multi_binary": {"shape": (4,), "type": "MultiBinary", "range": [0, 1]},
    "box": {"shape": (2,), "type": "Box", "range": [-1, 1]},
    "matrix": {"shape": (2, 3), "type": "Box", "range": [-1, 1]},
}


def minimal(obs: str, action: str) -> tuple[Any, Any]:
    """The shortest config form of a pair of spaces."""
    return (
        _MINIMAL.get(obs) or space_config({**OBS_SPACES, **GOAL_SPACES}[obs]),
        _MINIMAL_ACTIONS.get(action) or space_config(ACTION_SPACES[action]),
    )
