"""What a CUDA device must show. Where there is none, the tests that need one are skipped, and those of them that
compare devices run with one that only labels tensors (see tests.other_device)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from hsw import eval as evaluation
from hsw.agent import DistributedAgent
from hsw.algorithm import DAAC, PPO
from hsw.network import ActorCritic
from hsw.run.checkpoint import clone_state
from hsw.seeding import get_rng_state, set_rng_state
from hsw.storage import DistributedStorage, HerReplayStorage, RolloutStorage
from hsw.transfer import _staging, to_device
from tests.agent.helpers import agent, replay_agent
from tests.agent.test_devices import OneBatch, owned, tree_to_host
from tests.other_device import OTHER, other_device
from tests.runs import agent_of, call, differences, newest, rows, run_dir, tiny_run, train_on
from tests.test_resume import nth, when

RECIPES = ("ppo", "daac", "sac", "her_sac", "impala")
IN_STEP = RECIPES[:-1]  # whose environments are in step with the learner
CUDA = torch.device("cuda", 0)
cuda = pytest.mark.cuda
PROCGEN = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="Procgen needs the extra envpool")


@pytest.fixture(params=["label", pytest.param("cuda", marks=cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device that is not the CPU."""
    with other_device() if request.param == "label" else contextlib.nullcontext():
        yield OTHER if request.param == "label" else CUDA


# -- whole runs -------------------------------------------------------------------------------------------------------


def train(folder: Path, recipe: str, *more: str, device: str = "cuda") -> list[dict[str, Any]]:
    result = call(*tiny_run(recipe), run_dir(folder), f"device={device}", *more)
    assert result.code == 0, result.err
    return rows(folder)


@cuda
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_and_is_evaluated_on_cuda(recipe: str, tmp_path: Path) -> None:
    logged = train(tmp_path / "run", recipe)
    assert all(math.isfinite(value) for row in logged for value in row.values() if isinstance(value, float))
    assert any("eval/return_mean" in row for row in logged)
    result = call(str(tmp_path / "run"), "--episodes", "2", "--device", "cuda", "--allow", "tests", main=evaluation.cli)
    assert result.code == 0, result.err


@cuda
@PROCGEN
@pytest.mark.parametrize("recipe", ["daac", "impala"])
def test_procgen_trains_on_cuda(recipe: str, tmp_path: Path) -> None:
    small = ("storage.num_steps=8", "env.num_envs=4", "num_train_steps=64", "eval_episodes=1")
    slots = ("storage.num_storages=12", "storage.batch_size=4") if recipe == "impala" else ()
    arguments = ("env=procgen", f"agent={recipe}", "device=cuda", "quiet=true", run_dir(tmp_path), *small, *slots)
    result = call(*arguments)
    assert result.code == 0, result.err


@cuda
@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_goes_on_where_another_device_left_it(recipe: str, first: str, then: str, tmp_path: Path) -> None:
    train(tmp_path, recipe, device=first)
    before = newest(tmp_path)
    result = call(f"resume={tmp_path}", f"device={then}", "num_train_steps=256", "allow=[tests]")
    assert result.code == 0, result.err
    after = newest(tmp_path)
    assert after["step"] >= 256 > before["step"]
    assert after["algorithm"]["num_updates"] > before["algorithm"]["num_updates"]


@cuda
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_folder_of_cuda_is_evaluated_on_the_cpu_as_on_cuda(recipe: str, tmp_path: Path) -> None:
    train(tmp_path, recipe)
    scores = []
    for place in ("cpu", "cuda"):
        options = ("--episodes", "4", "--deterministic", "--device", place, "--allow", "tests")
        result = call(str(tmp_path), *options, main=evaluation.cli)
        assert result.code == 0, result.err
        scores.append(json.loads(result.out)["returns"])
    assert np.allclose(scores[0], scores[1], rtol=1e-3)  # a last bit is hardly another move


@cuda
@pytest.mark.parametrize("recipe", IN_STEP)
def test_a_run_on_cuda_that_is_stopped_and_continued_is_the_run_that_was_not(recipe: str, tmp_path: Path) -> None:
    arguments = (*tiny_run(recipe), "device=cuda")
    with deterministic():
        with agent_of(*arguments, folder=tmp_path / "whole") as whole:
            train_on(whole, 256)
            expected = clone_state(tree_to_host(whole.state_dict()))
        with agent_of(*arguments, folder=tmp_path / "first") as first:
            when(first, first.env, "step", nth(40))
            assert train_on(first, 256) is not None
        state = newest(tmp_path / "first")
        assert len(state["rng"]["cuda"]) == torch.cuda.device_count()
        torch.cuda.manual_seed_all(99)  # what a new process finds is another state
        with agent_of(*arguments, folder=tmp_path / "second") as second:
            second.load_state_dict(state)
            train_on(second, 256)
            found = tree_to_host(second.state_dict())
    kept = ("policy", "algorithm", "rng")
    assert not differences({key: found[key] for key in kept}, {key: expected[key] for key in kept})


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """As far as torch's algorithms are."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


# -- one update -------------------------------------------------------------------------------------------------------


def close(one: Any, other: Any) -> None:
    """Weights that differ by no more than the order of sums explains."""
    pairs = zip(one.policy.state_dict().items(), other.policy.state_dict().values(), strict=True)
    for (name, weight), like in pairs:
        torch.testing.assert_close(weight.cpu(), like.cpu(), rtol=1e-3, atol=1e-4, msg=lambda text: f"{name}: {text}")  # noqa: B023


def moved(state: Any) -> Any:
    return clone_state(tree_to_host(state))


@pytest.mark.parametrize(("kind", "name"), [(PPO, "Bandit"), (DAAC, "Reach")])
def test_an_on_policy_update_is_the_cpus(kind: Any, name: str, device: torch.device) -> None:
    here = agent(name, kind=kind)
    here.train(48)  # its optimisers have moments
    here._budget = 1000
    here._collect()
    here.storage.before_gradients(here.policy, here.algorithm)
    there = agent(name, kind=kind, device=str(device), storage={"device": str(device)})
    there.policy.load_state_dict(here.policy.state_dict())
    there.algorithm.load_state_dict(moved(here.algorithm.state_dict()))
    there.storage.load_state_dict(moved(here.storage.state_dict()))
    before = [weight.clone() for weight in here.policy.parameters()]
    for one in (here, there):
        one.algorithm.progress = 0.5  # of the schedules
        one.algorithm.update(one.storage)
    assert not all(map(torch.equal, before, here.policy.parameters()))
    close(there, here)


@pytest.mark.parametrize("recipe", ["sac", "her_sac"])
def test_an_off_policy_update_is_the_cpus(recipe: str, device: torch.device) -> None:
    options = {"name": "Homing", "storage_type": HerReplayStorage} if recipe == "her_sac" else {}
    here = replay_agent(**options)
    here.train(60)
    there = replay_agent(device=str(device), storage={"device": str(device)}, **options)
    there.policy.load_state_dict(here.policy.state_dict())
    there.algorithm.load_state_dict(moved(here.algorithm.state_dict()))
    there.storage.load_state_dict(moved(here.storage.state_dict()))
    for one in (here, there):
        with same_noise():
            one.algorithm.update(one.storage)
    close(there, here)


@contextlib.contextmanager
def same_noise() -> Iterator[None]:
    """randn_like draws from a generator that begins anew, on the CPU."""
    generator, original = torch.Generator().manual_seed(3), torch.randn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda like: original(like.shape, generator=generator).to(like.device))
        yield


@pytest.mark.parametrize("lstm_size", [0, 8])
def test_impalas_update_is_the_cpus(lstm_size: int, device: torch.device) -> None:
    sizes = {"num_actors": 1, "num_learners": 1, "num_steps": 4, "num_storages": 4, "batch_size": 2, "num_envs": 1}
    make = lambda place: DistributedAgent(
        gym.make("tests.envs:Bandit-v0"), hidden_dim=8, lstm_size=lstm_size, device=str(place), **sizes
    )
    here, there = make("cpu"), make(device)
    there.policy.load_state_dict(here.policy.state_dict())
    storage: Any = here.storage
    assert isinstance(storage, DistributedStorage)
    generator = torch.Generator().manual_seed(1)
    for name, block in storage.storages.items():
        if block.is_floating_point():
            block.copy_(torch.rand(block.shape, generator=generator) - 1.5 * (name == "log_probs"))
    storage.storages["valid"].fill_(True)
    for one, place in ((here, "cpu"), (there, device)):
        for slots in ([0, 1], [2, 3]):
            full = SimpleQueue(slots)
            batch = storage.sample(place, 2, full, full, storage.storages, storage.init_actor_state_storages)
            one.algorithm.update(OneBatch(batch))
    close(there, here)


class SimpleQueue:
    """Slots' numbers, once."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = list(numbers)

    def get(self) -> int:
        return self.numbers.pop(0)

    def put(self, number: int) -> None:
        return


@pytest.mark.parametrize("first", ["cpu", "device"])
def test_the_optimisers_moments_and_counters_are_where_the_networks_are(first: str, device: torch.device) -> None:
    begun = agent(device="cpu" if first == "cpu" else str(device))
    begun.train(48)
    built = agent(device=str(device))
    built.load_state_dict(moved(begun.state_dict()))
    built.train(96)
    state = owned(built.algorithm.state_dict()["optimizers"])
    assert {(part.device.type, part.device.index or 0) for part in state} == {(device.type, 0)}
    assert len(state) == 3  # the fused Adam's step is a tensor beside its two moments, and there too


def test_convolutions_stay_channels_last_and_learn_as_on_the_cpu(device: torch.device) -> None:
    spaces = Box(0, 255, (3, 36, 36), np.uint8), Box(-1, 1, (2,))
    trained = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(1)
        policy = ActorCritic(*spaces).to(place)
        algorithm, storage = PPO(policy, num_mini_batch=2), RolloutStorage(*spaces, "cpu", 2, 2)
        storage.bind(policy, algorithm)
        flags, random = torch.zeros(2, dtype=torch.bool), np.random.default_rng(1)
        images = random.integers(0, 256, (3, 2, 3, 36, 36), np.uint8)
        actions = random.normal(size=(2, 2, 2)).astype(np.float32)
        for t in range(2):
            extras = {"log_probs": np.full(2, -2.0, np.float32), "values": np.zeros(2, np.float32)}
            storage.add(images[t], actions[t], np.ones(2, np.float32), flags, flags, images[t + 1], **extras)
        storage.before_gradients(policy, algorithm)
        algorithm.update(storage)
        weight: Any = next(part for part in policy.parameters() if part.ndim == 4)
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert weight.grad.stride() == weight.stride()
        trained.append(algorithm)
    close(*trained)


# -- random numbers and transfers -------------------------------------------------------------------------------------


@cuda
def test_the_generator_of_cuda_is_saved_and_restored() -> None:
    torch.rand(1, device=CUDA)
    state = clone_state(get_rng_state())
    first = torch.rand(5, device=CUDA)
    set_rng_state(state)
    assert torch.equal(torch.rand(5, device=CUDA), first)


def test_a_checkpoint_of_more_devices_restores_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: restored.update({index: int(state[0])}))
    set_rng_state({**get_rng_state_of_cpu(), "cuda": [torch.tensor([n], dtype=torch.uint8) for n in (7, 8, 9)]})
    assert restored == {0: 7, 1: 8}


def get_rng_state_of_cpu() -> dict[str, Any]:
    return {key: value for key, value in get_rng_state().items() if key != "cuda"}


@cuda
def test_batches_arrive_whole_while_the_device_is_busy() -> None:
    def send(seed: int, results: list[bool]) -> None:
        random = np.random.default_rng(seed)
        for size in (10, 200_000, 3, 1_000_000, 50_000) * 4:
            given = {"a": random.integers(0, 255, size, np.uint8), "b": random.normal(size=(size, 2))}
            kept = {name: part.copy() for name, part in given.items()}
            torch.cuda._sleep(1_000_000)  # the copy waits behind this
            there = to_device(given, CUDA)
            given["a"][:], given["b"][:] = 0, 0
            results += [np.array_equal(there[name].cpu().numpy(), kept[name]) for name in kept]
        results.append(all(buffer.is_pinned() for buffer in _staging(CUDA)._buffers))

    results: list[bool] = []
    threads = [threading.Thread(target=send, args=(seed, results)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results)
    assert len(results) == 3 * (2 * 20 + 1)


@cuda
def test_many_batches_in_flight_arrive_whole() -> None:
    torch.cuda._sleep(20_000_000)
    sent = [to_device(np.full(100_000, n, np.int32), CUDA) for n in range(50)]
    assert [set(there.tolist()) for there in sent] == [{n} for n in range(50)]
