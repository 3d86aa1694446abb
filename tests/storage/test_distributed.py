"""Slots in shared memory: written in one process, copied in another, freed when copied."""

from __future__ import annotations

import os
import pickle
import queue
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing
from gymnasium.spaces import Box, Dict, Discrete

from hsw.errors import ConfigError
from hsw.spaces import leaves, tree_map
from hsw.storage import DistributedStorage

T, SLOTS, B, H = 3, 4, 2, 5
OBS = Dict({"vector": Box(-1, 1, (2,), np.float32), "image": Box(0, 255, (3, 8, 8), np.uint8)})
ACTION = Discrete(3)


def storage_of(lstm: bool = False, obs: Any = OBS, **kwargs: Any) -> DistributedStorage:
    storage = DistributedStorage(obs, ACTION, "cpu", T, **{"num_storages": SLOTS, "batch_size": B, **kwargs})
    storage.init_tensors({"init_actor_states": (torch.zeros(1, 1, H),) * (2 if lstm else 0)})
    return storage


def row(number: int) -> dict[str, Any]:
    return {
        "obs": {"vector": np.full(2, number / 8, np.float32), "image": np.full((3, 8, 8), number, np.uint8)},
        "actions": number % 3,
        "rewards": float(number),
        "valid": True,
    }


def write(storage: DistributedStorage, free: Any, full: Any, count: int) -> None:
    """An actor: rollout k has the rows 10 k, 10 k + 1, ... and begins with the state k."""
    for k in range(count):
        slot = free.get()
        storage.set_initial_state([slot], tuple(torch.full((1, 1, H), float(k)) for _ in storage.core))
        for t in range(T + 1):
            storage.add(slot, t, row(10 * k + t))
        full.put(slot)


def as_lists(value: Any) -> Any:
    """Blocks as lists of one tensor for each slot."""
    return {key: as_lists(part) for key, part in value.items()} if isinstance(value, dict) else list(value)


def queues(*free: int) -> tuple[Any, Any]:
    free_queue: Any = queue.SimpleQueue()
    for slot in free:
        free_queue.put(slot)
    return free_queue, queue.SimpleQueue()


@pytest.mark.parametrize("lstm", [False, True])
@pytest.mark.parametrize("form", ["blocks", "lists"])
def test_what_another_process_writes_is_sampled_once_and_whole(form: str, lstm: bool) -> None:
    context, count = torch.multiprocessing.get_context("forkserver"), 6 * B
    context.set_forkserver_preload(["hsw.agent.actor"])
    storage = storage_of(lstm)
    storages = as_lists(storage.storages) if form == "lists" else storage.storages
    free, full = context.Queue(), context.Queue()
    for slot in range(SLOTS):
        free.put(slot)
    writer = context.Process(target=write, args=(storage, free, full, count), daemon=True)
    writer.start()
    seen = []
    for _ in range(count // B):
        batch = storage.sample("cpu", B, free, full, storages, storage.init_actor_state_storages)
        for b in range(B):
            k = int(batch.rewards[0, b]) // 10
            numbers = torch.arange(10 * k, 10 * k + T + 1)
            assert torch.equal(batch["rewards"][:, b], numbers.float())
            assert torch.equal(batch.obs["image"][:, b, 0, 0, 0], numbers.to(torch.uint8))
            assert torch.equal(batch.actions[:, b], numbers % 3)
            assert [part[0, b].tolist() for part in batch.init_actor_states] == [[k] * H] * (2 * lstm)
            seen.append(k)
    writer.join(10)
    assert writer.exitcode == 0
    assert sorted(seen) == list(range(count))
    assert sorted(free.get(timeout=5) for _ in range(SLOTS)) == list(range(SLOTS))


def test_the_copy_is_made_before_the_slot_is_freed() -> None:
    storage = storage_of(lstm=True)
    _, full = queues()
    write(storage, queues(3, 1)[0], full, 2)

    def overwrite(slot: int) -> None:
        for block in (*leaves(storage.storages), *storage.core):
            block[slot] = 1 if block.dtype == torch.bool else 99

    batch = storage.sample(
        "cpu", 2, SimpleNamespace(put=overwrite), full, storage.storages, storage.init_actor_state_storages
    )
    assert batch.rewards.T.tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert batch.init_actor_states[1][0, :, 0].tolist() == [0, 1]
    assert not batch.truncateds.any()
    assert set(batch.obs["image"].flatten().tolist()) == {0, 1, 2, 3, 10, 11, 12, 13}


def test_learner_threads_neither_wait_for_one_anothers_slots_nor_lose_one() -> None:
    learners, batches, size = 3, 20, 3
    storage = storage_of()
    free, full = queues(*range(SLOTS))

    def fill() -> None:
        for _ in range(learners * batches * size):
            full.put(free.get())

    def learn() -> None:
        for _ in range(batches):
            storage.sample("cpu", size, free, full, storage.storages, storage.init_actor_state_storages)

    threads = [threading.Thread(target=target, daemon=True) for target in (fill, *[learn] * learners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(free.get_nowait() for _ in range(SLOTS)) == list(range(SLOTS))
    assert free.empty()
    assert full.empty()


def test_fields_keep_their_types_and_have_time_first() -> None:
    storage = storage_of()
    free, full = queues(0)
    write(storage, free, full, 1)
    batch = storage.sample("cpu", 1, free, full, storage.storages, [])
    assert (batch.obs["image"].dtype, batch.obs["image"].shape) == (torch.uint8, (T + 1, 1, 3, 8, 8))
    assert (batch.obs["vector"].dtype, batch.obs["vector"].shape) == (torch.float32, (T + 1, 1, 2))
    assert (batch.actions.dtype, batch.actions.shape) == (torch.int64, (T + 1, 1))
    assert batch.valid.dtype == torch.bool
    assert batch.init_actor_states == ()
    with pytest.raises(AttributeError, match="value_preds"):
        _ = batch.value_preds


def test_one_call_writes_a_row_of_many_slots() -> None:
    storage = storage_of(obs=Box(-1, 1, (2,), np.float32))
    for t in range(T + 1):
        values = torch.tensor([[t, 1.0], [t, 2.0]])
        storage.add([2, 0], t, {"obs": values, "rewards": values[:, 1:], "actions": np.array([1, 2])})
    assert storage.storages["rewards"][:, 0].tolist() == [2, 0, 1, 0]
    assert storage.storages["obs"][2, :, 0].tolist() == [0, 1, 2, 3]
    assert storage.storages["actions"][0].tolist() == [2] * (T + 1)
    with pytest.raises(KeyError, match="advantages"):
        storage.add(0, 0, {"advantages": 1.0})


def test_gradients_do_not_grow_in_shared_tensors() -> None:
    storage = storage_of(lstm=True)
    free, full = queues(0, 1)
    weight = torch.ones(1, requires_grad=True)
    for slot in (0, 1):
        storage.add(slot, 0, {"log_probs": weight * 2})
        storage.set_initial_state([slot], (weight.expand(1, 1, H), weight.expand(1, 1, H)))
        full.put(slot)
    storage.rows = 2 * (T + 1)
    data = storage.get_all_buffer_data()
    core = {name: part * weight for name, part in data["core"].items()}
    storage.insert_data_slice({**data, "log_probs": data["log_probs"] * weight, "core": core})
    assert not any(part.requires_grad for part in (*leaves(storage.storages), *storage.core))
    storages = {"log_probs": [(part * weight) for part in storage.storages["log_probs"]]}
    batch = storage.sample("cpu", 2, free, full, storages, [(weight.expand(1, 1, H),)] * SLOTS)
    assert batch.log_probs[0].tolist() == [2, 2]
    assert not batch.log_probs.requires_grad
    assert not batch.init_actor_states[0].requires_grad


def test_too_little_shared_memory_is_refused_before_anything_is_allocated(monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    storage = DistributedStorage(OBS, ACTION, "cpu", T, 100, B)
    with pytest.raises(ConfigError, match=r"num_storages=100 needs 0 MiB .* at most \d+ slots fit") as refused:
        storage.init_tensors({})
    assert storage.storages == {}
    largest = int(str(refused.value).split()[-3])
    storage_of(num_storages=largest)
    with pytest.raises(ConfigError):
        storage_of(num_storages=largest + 1)


def test_a_process_gets_the_blocks_and_nothing_of_the_learners() -> None:
    storage = storage_of()
    storage.bind(lambda: "no pickle takes this", lambda: "nor this")
    other = pickle.loads(pickle.dumps(storage))
    assert (other.actor, other.algorithm) == (None, None)
    other.add(1, 0, row(7))
    assert other.storages["rewards"][1, 0] == 7


def test_a_batch_larger_than_the_storage_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=5 must be at most num_storages=4"):
        DistributedStorage(OBS, ACTION, "cpu", T, SLOTS, 5)


def test_rows_beyond_the_last_slot_are_refused() -> None:
    storage = storage_of()
    for number in range(SLOTS * (T + 1)):
        storage.insert_transition(row(number))
    with pytest.raises(ConfigError, match="all 4 slots are full"):
        storage.insert_transition(row(0))
    storage.reset()
    storage.insert_transition(row(1))
    assert storage.update() is None


@pytest.mark.parametrize("size", [(2,), (40, 40), (3, 64, 64)])
def test_rows_of_many_slots_and_of_one_are_the_same_whatever_is_small_or_large(size: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    obs = Dict({"one": Box(-1, 1, size, np.float32), "two": Dict({"bytes": Box(0, 255, size, np.uint8)})})
    whole, single = storage_of(obs=obs), storage_of(obs=obs)
    slots = np.array([2, 0, 3])
    for t in range(T + 1):
        step = {
            name: tree_map(lambda block: random.integers(0, 2, (3, *block.shape[2:])).astype(block.numpy().dtype), part)
            for name, part in whole.storages.items()
        }
        whole.add(slots, t, step)
        for index, slot in enumerate(slots):
            for name, part in step.items():
                single.add(int(slot), t, {name: tree_map(lambda values, k=index: torch.from_numpy(values)[k], part)})
    for mine, other in zip(leaves(whole.storages), leaves(single.storages), strict=True):
        assert torch.equal(mine, other)
        assert mine.is_shared()
    assert not whole.storages["actions"][1].any()
    numbers = SimpleNamespace(get=iter([3, 2]).__next__, put=lambda slot: None)
    batch = whole.sample("cpu", 2, numbers, numbers, whole.storages, [])
    for mine, other in zip(leaves(dict(batch, init_actor_states={})), leaves(dict(whole.storages)), strict=True):
        assert torch.equal(mine, other[[3, 2]].transpose(0, 1))
        assert mine.dtype == other.dtype


def test_a_batch_stays_what_it_is_however_many_follow() -> None:
    storage = storage_of(obs=Box(0, 255, (3, 400, 400), np.uint8))  # large enough to be used again
    image = np.zeros((3, 400, 400), np.uint8)

    def batch_of(number: int) -> Any:
        for t in range(T + 1):
            storage.add(0, t, {"obs": image + np.uint8(number)})
        one = SimpleNamespace(get=lambda: 0, put=lambda slot: None)
        return storage.sample("cpu", 1, one, one, storage.storages, [])

    first, second = batch_of(1), batch_of(2)["obs"][1:, 0, 0]
    for number in range(3, 8):
        assert (batch_of(number)["obs"] == number).all()
    assert (first["obs"] == 1).all()
    assert (second == 2).all()
