"""Small agents on the tests' environments, built as a library user builds them."""

from __future__ import annotations

from typing import Any

import torch

from hsw.agent import OnPolicyAgent
from hsw.algorithm import DAAC, PPO
from hsw.network import ActorCritic, DecoupledActorCritic
from hsw.seeding import seed_everything
from tests.env.helpers import make

POLICIES = {PPO: ActorCritic, DAAC: DecoupledActorCritic}
NUM_STEPS, NUM_ENVS = 16, 3


def agent(name: str = "Bandit", kind: Any = PPO, seed: int = 1, backend: str = "sync", **kwargs: Any) -> OnPolicyAgent:
    """kwargs: env, algorithm and storage hold their options; the rest is the agent's."""
    seed_everything(seed)
    options = {part: kwargs.pop(part, {}) for part in ("env", "algorithm", "storage")}
    env = make(name, NUM_ENVS, backend, seed=seed, **options["env"])
    policy = POLICIES[kind](env.observation_space, env.action_space, hidden_sizes=(16,))
    algorithm = kind(policy, **{"lr": 1e-2, "num_mini_batch": 2, **options["algorithm"]})
    sizes = {"num_steps": NUM_STEPS, "num_envs": NUM_ENVS, **options["storage"]}
    storage = kind.storage_type(env.observation_space, env.action_space, **sizes)
    return OnPolicyAgent(env, policy=policy, algorithm=algorithm, storage=storage, seed=seed, **kwargs)


def weights(trained: OnPolicyAgent) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trained.policy.parameters()]
