"""Acting with NumPy in the place of torch: the same choices from the same random numbers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from hsw.agent.actor import Collector
from hsw.env import make_env
from hsw.network import RecurrentActorCritic
from hsw.seeding import seed_everything
from hsw.storage import DistributedStorage

N, T = 6, 30


def rollouts(monkeypatch: Any, small: bool, **network: Any) -> tuple[dict[str, torch.Tensor], list[bool]]:
    """Two rollouts of CartPole with weights that change between them, and which rows NumPy acted in."""
    seed_everything(3)
    env = make_env("CartPole-v1", "sync", N, seed=5)
    policy = RecurrentActorCritic(env.observation_space, env.action_space, **network)
    with torch.no_grad():
        policy.policy_head.weight.normal_()
    storage = DistributedStorage(env.observation_space, env.action_space, num_steps=T, num_storages=2 * N, batch_size=N)
    storage.init_tensors({"init_actor_states": policy.initial_memory(1).core})
    collector, used = Collector(policy, env, storage), []
    for half in range(2):
        slots = list(range(half * N, (half + 1) * N))
        with torch.no_grad():
            policy.encoder.layers[0].weight.add_(half)
        with collector.acting():
            if not small:
                policy._snapshot = None
            used.append(policy._snapshot is not None)
            collector.begin(slots, half)
            while not collector.step():
                pass
    env.close()
    return {**storage.storages, **{f"core{k}": part for k, part in enumerate(storage.core)}}, used


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("lstm_size", "last"), [(0, False), (0, True), (5, True)])
def test_a_rollout_is_the_same(monkeypatch: Any, lstm_size: int, last: bool, activation: str) -> None:
    network = {"lstm_size": lstm_size, "last_action_reward": last, "activation": activation}
    (fast, used), (plain, unused) = (rollouts(monkeypatch, small, **network) for small in (True, False))
    assert used == [True, True]
    assert unused == [False, False]
    for name in plain:
        if name == "log_probs" or name.startswith("core"):
            torch.testing.assert_close(fast[name], plain[name], rtol=0, atol=2e-6)
        else:
            assert torch.equal(fast[name], plain[name]), name
    assert plain["actions"].float().mean() not in (0, 1)


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (Box(0, 255, (4,), np.uint8), {}),
        (Discrete(5), {}),
        (MultiDiscrete([3, 4]), {}),
        (Box(-1, 1, (2, 3), np.float64), {}),
        (Box(-1, 1, (4,), np.float32), {"hidden_sizes": ()}),
        (Box(-1, 1, (4,), np.float32), {"activation": "elu"}),
        (Box(-1, 1, (4,), np.float32), {"hidden_sizes": (600, 600)}),
        (gym.spaces.Dict({"a": Box(-1, 1, (4,), np.float32)}), {}),
    ],
)
def test_every_kind_of_observation_and_network_acts_alike(space: Any, options: dict[str, Any]) -> None:
    policy = RecurrentActorCritic(space, Discrete(3), last_action_reward=False, **options)
    seeded = [space.sample() for _ in range(7)]
    as_tensor = lambda values: torch.from_numpy(np.stack(values))
    obs: Any = {"a": as_tensor([one["a"] for one in seeded])} if isinstance(seeded[0], dict) else as_tensor(seeded)
    with torch.no_grad():
        torch.manual_seed(0)
        plain, extras = policy.act(obs)
        with policy.acting():
            torch.manual_seed(0)
            fast, fast_extras = policy.act(obs)
    assert torch.equal(plain, fast)
    torch.testing.assert_close(extras["log_probs"], fast_extras["log_probs"])


@pytest.mark.parametrize("actions", [torch.arange(3), torch.rand(3, 2), torch.ones(3, 2, dtype=torch.int8)])
def test_what_is_remembered_of_a_reset_is_nothing(actions: torch.Tensor) -> None:
    policy = RecurrentActorCritic(Box(-1, 1, (4,), np.float32), Discrete(3))
    memory = policy.initial_memory(3)
    valid, rewards = torch.tensor([True, False, True]), torch.tensor([1.0, 2.0, 3.0])
    memory.remember(actions, rewards, valid)
    assert memory.starts.tolist() == [False, True, False]
    assert memory.last_rewards.tolist() == [1, 0, 3]
    assert memory.last_actions.dtype == actions.dtype
    assert not memory.last_actions[1].any()
    assert torch.equal(memory.last_actions[[0, 2]], actions[[0, 2]])
