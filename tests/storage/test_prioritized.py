"""Prioritised replay against lists: what is drawn how often, what it counts, and what follows a wrap-around."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.errors import ConfigError
from hsw.storage import PrioritizedReplayStorage
from hsw.storage.sum_tree import SumTree
from hsw.template import StateError, hold
from tests.helpers import equal

OBS, ACTIONS = gym.spaces.Box(-1e9, 1e9, (1,), np.float32), gym.spaces.Discrete(3)


def make(size: int = 12, num_envs: int = 2, **kwargs: Any) -> PrioritizedReplayStorage:
    return PrioritizedReplayStorage(OBS, ACTIONS, storage_size=size, num_envs=num_envs, batch_size=8, **kwargs)


class Naive:
    """The transitions that stand, by name, and their priorities, in lists."""

    def __init__(self, capacity: int, num_envs: int) -> None:
        self.envs: list[list[list[Any]]] = [[] for _ in range(num_envs)]  # [name, priority], None at episodes' ends
        self.rows, self.largest = capacity + 1, 1.0

    def add(self, env: int, name: int, done: bool) -> None:
        rows = self.envs[env]
        if rows and rows[-1] == "pending":
            rows.pop()
        rows.append([name, self.largest])
        rows.append(None if done else "pending")
        del rows[: max(0, len(rows) - self.rows)]

    def priorities(self) -> dict[int, float]:
        return {row[0]: row[1] for rows in self.envs for row in rows if isinstance(row, list)}

    def tell(self, name: int, priority: float) -> None:
        for rows in self.envs:
            for row in rows:
                if isinstance(row, list) and row[0] == name:
                    row[1] = priority
        self.largest = max(self.largest, priority)


def played(rounds: int, seed: int = 0, **kwargs: Any) -> tuple[PrioritizedReplayStorage, Naive]:
    """A storage and its oracle after so many rows, with errors told in between. A transition's reward is its name."""
    storage, naive = make(**kwargs), Naive(6, 2)
    random = np.random.default_rng(seed)
    for t in range(rounds):
        done = random.random(2) < 0.3
        names = np.array([2.0 * t, 2.0 * t + 1])
        storage.add(names[:, None], np.zeros(2, int), names, done, np.zeros(2, bool), {}, names[:, None] + 1)
        for env in range(2):
            naive.add(env, int(names[env]), bool(done[env]))
        batch = storage.sample()
        errors = torch.from_numpy(random.exponential(size=8)).float()
        storage.update_priorities(batch.indices, errors)
        for name, error in zip(batch.rewards.int().tolist(), errors.double().tolist(), strict=True):
            naive.tell(name, (error + 1e-6) ** 0.6)
    return storage, naive


@pytest.mark.parametrize("rounds", [1, 5, 40])
def test_priorities_are_those_of_lists_also_after_the_ring_wrapped(rounds: int) -> None:
    storage, naive = played(rounds)
    assert storage.ring is not None
    places = storage.ring.ordered(storage._firsts())
    kept = dict(
        zip(storage.ring.memory["rewards"][places].astype(int).tolist(), storage._tree.values[places], strict=True)
    )
    assert kept == pytest.approx(naive.priorities())
    assert storage.largest == pytest.approx(naive.largest)
    assert storage._tree.total == pytest.approx(sum(naive.priorities().values()))


def test_transitions_are_drawn_in_proportion_to_their_priorities() -> None:
    storage, naive = played(40)
    priorities = naive.priorities()
    counts = dict.fromkeys(priorities, 0)
    draws = 4000
    for _ in range(draws // 8):
        for name in storage.sample().rewards.int().tolist():
            counts[name] += 1
    total = sum(priorities.values())
    expected = np.array([priorities[name] / total * draws for name in counts])
    chi_square = float(((np.array(list(counts.values())) - expected) ** 2 / expected).sum())
    assert chi_square < 1.5 * len(counts)  # equal parts vary less than independent draws; 1 a degree is theirs


def test_weights_undo_the_draw_in_part() -> None:
    storage, naive = played(40, beta=0.4, beta_end=1.0)
    priorities = naive.priorities()
    total, size = sum(priorities.values()), len(priorities)
    for progress, beta in ((0.0, 0.4), (0.5, 0.7), (1.0, 1.0)):
        storage.algorithm = SimpleNamespace(progress=progress)
        batch = storage.sample()
        raw = [(size * priorities[name] / total) ** -beta for name in batch.rewards.int().tolist()]
        np.testing.assert_allclose(batch.weights.numpy(), np.array(raw) / max(raw), rtol=1e-5)


def test_without_alpha_all_are_drawn_alike_and_count_alike() -> None:
    storage = make(alpha=0.0)
    for _ in range(4):
        storage.add(np.ones((2, 1)), np.zeros(2, int), np.ones(2), False, False, {}, np.ones((2, 1)))
        batch = storage.sample()
        storage.update_priorities(batch.indices, torch.arange(8.0))
    assert storage.sample().weights.tolist() == [1.0] * 8
    assert len(storage) == 8


def test_a_resumed_storage_draws_what_the_other_would_have() -> None:
    one, _ = played(40)
    state = one.state_dict()
    hold(one.state_template(), state, "storage")
    other = make()
    other.load_state_dict(state)
    for storage in (one, other):
        storage.update_priorities(storage.sample().indices, torch.arange(8.0))
    batches = [[vars(storage.sample()) for _ in range(5)] for storage in (one, other)]
    assert equal(*batches)


def test_priorities_of_other_transitions_are_refused() -> None:
    one, _ = played(40)
    state = one.state_dict()
    state["priorities"] = torch.ones_like(state["priorities"])
    with pytest.raises(StateError, match="priorities"):
        make().load_state_dict(state)


def test_an_empty_one_gives_no_batch() -> None:
    storage = make()
    with pytest.raises(ConfigError, match="empty"):
        storage.sample()
    storage.add(np.ones((2, 1)), np.zeros(2, int), np.ones(2), False, False, {}, np.ones((2, 1)))
    storage.reset()
    with pytest.raises(ConfigError, match="empty"):
        storage.sample()


@pytest.mark.parametrize("size", [1, 15, 16, 17, 5000, 70_000])
def test_a_sum_tree_draws_where_the_running_sum_is(size: int) -> None:
    random = np.random.default_rng(size)
    tree, values = SumTree(size), np.zeros(size)
    for _ in range(5):
        places = random.integers(size, size=20)
        new = random.exponential(size=20) * (random.random(20) < 0.7)
        new[0] += 1.0
        values[places] = new
        tree.set(places, new)
    rebuilt = SumTree(size)
    rebuilt.fill(values)
    assert all(np.array_equal(*levels) for levels in zip(tree._levels, rebuilt._levels, strict=True))
    parts = np.concatenate([random.random(500), [0.0, np.nextafter(1.0, 0.0)]])
    found = tree.draw(parts)
    assert (values[found] > 0).all()
    ends = values.cumsum()
    expected = ends.searchsorted(parts * ends[-1], "right")
    agree = found == np.minimum(expected, np.flatnonzero(values)[-1])
    assert agree.mean() > 0.99  # but for the last bit of a sum
