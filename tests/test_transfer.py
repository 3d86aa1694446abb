"""What crosses to a device: once a batch, out of pinned memory, which is not written again before it has crossed."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from hsw.spaces import leaves
from hsw.storage import DistributedStorage, HerReplayStorage, ReplayStorage
from hsw.transfer import to_device
from tests.agent.helpers import agent, replay_agent
from tests.helpers import draw
from tests.other_device import CPU, OTHER, other_device
from tests.slow_copies import CUDA, slow_copies


def tree(start: int = 0) -> dict[str, Any]:
    """Every dtype of a storage, parts that are strided, empty, single or of another order, and a tuple."""
    records = np.zeros(5, np.dtype([("a", "float32", (3,)), ("b", "bool"), ("c", "int32")], align=True))
    records["a"], records["b"], records["c"] = start + np.arange(15).reshape(5, 3), [1, 0, 1, 1, 0], np.arange(5)
    return {
        "obs": {"pixels": np.full((2, 3, 3), start + 7, np.uint8), "numbers": np.arange(4.0) + start},
        "strided": {name: records[name] for name in ("a", "b", "c")},
        "turned": torch.arange(6.0).view(2, 3).T + start,
        "half": torch.ones(3, dtype=torch.bfloat16) * start,
        "empty": np.zeros((0, 4), np.int64),
        "one": torch.tensor(start),
        "core": (torch.ones(1, 2, 1, requires_grad=True) * start, np.ones(1, np.int8)),
    }


def parts(value: Any) -> list[torch.Tensor]:
    if isinstance(value, dict | tuple):
        return [part for one in (value.values() if isinstance(value, dict) else value) for part in parts(one)]
    return [torch.as_tensor(value)]


def same(one: Any, other: Any) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(parts(one), parts(other), strict=True)
    )


def test_on_the_cpu_it_is_the_same_memory() -> None:
    given = tree()
    there = to_device(given, CPU)
    assert there.keys() == given.keys()
    assert [a.data_ptr() for a in parts(there)] == [b.data_ptr() for b in parts(given)]


def test_to_any_device_a_tree_arrives_as_it_was() -> None:
    with other_device() as labels:
        there = to_device(tree(3), OTHER)
        assert {labels[part] for part in parts(there)} == {OTHER}
        assert isinstance(there["core"], tuple)
        assert not there["core"][0].requires_grad
    assert same(there, tree(3))


def test_to_cuda_a_tree_goes_in_one_copy_out_of_pinned_memory_that_nothing_waits_for() -> None:
    with slow_copies() as device:
        there = to_device(tree(3), CUDA)
        assert [(pinned, non_blocking) for pinned, non_blocking, _ in device.crossed] == [(True, True)]
        device.finish()
    assert same(there, tree(3))
    assert all(part.data_ptr() % 64 == 0 for part in parts(there) if part.numel())  # as wide loads want it


def test_what_is_on_the_device_stays_there_and_only_the_rest_crosses() -> None:
    with slow_copies() as device:
        there = to_device({"obs": np.ones(64, np.uint8)}, CUDA)
        again = to_device({**there, "rewards": np.ones(2, np.float32)}, CUDA)
        assert again["obs"] is there["obs"]
        assert [size for _, _, size in device.crossed] == [64, 64]
        assert to_device(again, CUDA)["obs"] is there["obs"]
        assert len(device.crossed) == 2


def test_a_buffer_is_not_written_before_its_copy_is_done() -> None:
    with slow_copies() as device:
        sent = [to_device(tree(n), CUDA) for n in range(7)]
        assert device.waits == 5  # two are under way at a time
        device.finish()
    assert all(same(there, tree(n)) for n, there in enumerate(sent))


@pytest.mark.parametrize("sizes", [(4, 4000, 8, 100_000, 16, 3), (100_000, 1, 100_000)])
def test_batches_of_varying_sizes_share_the_buffers(sizes: tuple[int, ...]) -> None:
    with slow_copies() as device:
        sent = [to_device(np.full(size, size, np.int64), CUDA) for size in sizes]
        device.finish()
    assert [(len(there), set(there.tolist())) for there in sent] == [(size, {size}) for size in sizes]


def test_the_hosts_arrays_may_be_written_again_at_once() -> None:
    with slow_copies() as device:
        obs = np.ones(8, np.float32)
        there = to_device(obs, CUDA)
        obs[:] = 9
        device.finish()
    assert there.tolist() == [1] * 8


def test_a_buffer_that_was_made_while_evaluating_serves_training() -> None:
    with slow_copies() as device:
        for inference in (True, True, False):
            with torch.inference_mode(inference):
                there = to_device(np.ones(3, np.float32), CUDA)
        device.finish()
    assert there.tolist() == [1] * 3


def test_threads_have_buffers_of_their_own() -> None:
    from hsw import transfer

    found: list[Any] = []
    with slow_copies():
        pass  # its stand-in for the threads' memory is one for all
    run = lambda: found.append(transfer._threads.__dict__.setdefault("kept", {}))
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert found[0] is not found[1]


# -- whole batches ----------------------------------------------------------------------------------------------------

PLAIN = Dict({"pixels": Box(0, 255, (3, 8, 8), np.uint8), "speed": Box(-1, 1, (2,))})
GOALS = Dict({key: Box(-1, 1, (2,)) for key in ("achieved_goal", "desired_goal", "observation")})
HINDSIGHT = {"reward_fn": lambda achieved, desired, info: -np.abs(achieved - desired).sum(-1)}


@pytest.mark.parametrize(
    ("kind", "space", "options"),
    [(ReplayStorage, PLAIN, {"n_step": 3}), (ReplayStorage, PLAIN, {}), (HerReplayStorage, GOALS, HINDSIGHT)],
)
def test_a_replays_batch_is_one_copy_and_the_batch_that_the_cpu_gets(kind: Any, space: Any, options: Any) -> None:
    action_space = Box(-1, 1, (2,))
    storage = kind(space, action_space, "cpu", 40, 2, 16, **options)
    for t in range(30):
        dones = np.array([t % 7 == 6, t % 5 == 4])
        row = draw(space, 2, t), draw(action_space, 2, t), np.ones(2), dones, ~dones & (t % 4 == 3)
        storage.add(*row, {}, draw(space, 2, t + 1))
    state = storage.random_state
    expected = [vars(storage.sample()) for _ in range(5)]
    storage.random_state = state
    with slow_copies() as device:
        storage.device = CUDA
        batches = [vars(storage.sample()) for _ in range(5)]
        assert [crossed[:2] for crossed in device.crossed] == [(True, True)] * 5
        device.finish()
    assert all(same(batch, like) for batch, like in zip(batches, expected, strict=True))


def test_impalas_batch_is_one_copy_with_its_initial_states() -> None:
    storage = DistributedStorage(Box(-1, 1, (3,)), Discrete(2), num_steps=4, num_storages=6, batch_size=2)
    storage.init_tensors({"init_actor_states": (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5))})
    for block in leaves(storage.storages):
        block.copy_(torch.arange(block.numel()).view(block.shape) % 100)
    storage.core[1].copy_(torch.arange(30.0).view(6, 1, 1, 5))
    take = lambda device: storage.sample(
        device, 2, *[filled([3, 1])] * 2, storage.storages, storage.init_actor_state_storages
    )
    expected = take("cpu")
    with slow_copies() as device:
        batch = take(CUDA)
        assert [crossed[:2] for crossed in device.crossed] == [(True, True)]
        device.finish()
    assert same(batch, expected)
    assert batch.init_actor_states[1].shape == (1, 2, 5)
    assert same(batch.obs, expected.obs)


def filled(numbers: list[int]) -> Any:
    """A queue of slots, to which they may come back."""
    full: queue.Queue[int] = queue.Queue()
    for number in numbers:
        full.put(number)
    return full


# -- acting -----------------------------------------------------------------------------------------------------------


class Crossings:
    """Counts the trees that agents send, and the reads that wait for the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = self.back = 0
        self._within = False
        original, cpu = to_device, torch.Tensor.cpu

        def counted(tree: Any, device: Any) -> Any:
            self.sent += 1
            return original(tree, device)

        def counted_cpu(tensor: torch.Tensor) -> torch.Tensor:
            if self._within:  # the labels of the other device look the method up again
                return cpu(tensor)
            self._within = True
            self.back += 1
            try:
                return cpu(tensor)
            finally:
                self._within = False

        for module in ("parts", "evaluation"):
            monkeypatch.setattr(f"hsw.agent.{module}.to_device", counted)
        monkeypatch.setattr(torch.Tensor, "cpu", counted_cpu)


def test_a_row_of_an_on_policy_agent_crosses_once_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with other_device() as labels:
        built = agent(storage={"device": str(OTHER)}, device=str(OTHER))
        built.obs = built.env.reset()
        crossings = Crossings(monkeypatch)
        built._collect()
        rows = built.storage.num_steps
        assert (crossings.sent, crossings.back) == (rows + 1, rows)  # and the first observation
        assert {labels[part] for part in leaves(built.storage.obs)} == {OTHER}
        monkeypatch.undo()
        stored = built.storage.get_all_buffer_data(data_to_cpu=True)
    on_cpu = agent()
    on_cpu.obs = on_cpu.env.reset()
    on_cpu._collect()
    for name, field in on_cpu.storage.get_all_buffer_data().items():  # networks act otherwise, to the last bit
        assert torch.allclose(stored[name].float(), field.float(), atol=1e-6), name


def test_a_row_of_an_off_policy_agent_crosses_once_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with other_device():
        built = replay_agent(storage={"device": str(OTHER)}, device=str(OTHER), num_warmup_steps=0)
        built._budget = 100
        built.obs = built.env.reset()
        crossings = Crossings(monkeypatch)
        built._show_progress = lambda: None  # type: ignore[method-assign]
        for _ in range(5):
            built._collect_row()
        assert (crossings.sent, crossings.back) == (5, 5)
