"""Small agents on the tests' environments, built as a library user builds them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from hsw.agent import Agent, DistributedAgent, OffPolicyAgent, OnPolicyAgent
from hsw.algorithm import A2C, DAAC, PPO, SAC
from hsw.network import ActorCritic, DecoupledActorCritic, SoftActorCritic
from hsw.run.folder import RunFolder
from hsw.run.services import Run
from hsw.seeding import seed_everything
from hsw.storage import ReplayStorage
from tests.env.helpers import make

POLICIES = {PPO: ActorCritic, A2C: ActorCritic, DAAC: DecoupledActorCritic}
NUM_STEPS, NUM_ENVS = 16, 3
SMALL = {"num_actors": 2, "num_learners": 1, "num_steps": 6, "num_storages": 16, "batch_size": 4, "num_envs": 2}


def agent(name: str = "Bandit", kind: Any = PPO, seed: int = 1, backend: str = "sync", **kwargs: Any) -> OnPolicyAgent:
    """kwargs: env, algorithm and storage hold their options; the rest is the agent's."""
    seed_everything(seed)
    options = {part: kwargs.pop(part, {}) for part in ("env", "algorithm", "storage")}
    env = make(name, NUM_ENVS, backend, seed=seed, **options["env"])
    policy = POLICIES[kind](env.observation_space, env.action_space, hidden_sizes=(16,))
    passes = {} if kind is A2C else {"num_mini_batch": 2}
    algorithm = kind(policy, **{"lr": 1e-2, **passes, **options["algorithm"]})
    sizes = {"num_steps": NUM_STEPS, "num_envs": NUM_ENVS, **options["storage"]}
    storage = kind.storage_type(env.observation_space, env.action_space, **sizes)
    return OnPolicyAgent(env, policy=policy, algorithm=algorithm, storage=storage, seed=seed, **kwargs)


def replay_agent(
    name: str = "Aim",
    storage_type: Any = ReplayStorage,
    seed: int = 1,
    num_envs: int = 3,
    kind: Any = SAC,
    **kwargs: Any,
) -> OffPolicyAgent:
    """kwargs: env, network, algorithm and storage hold their options; the rest is the agent's."""
    seed_everything(seed)
    options = {part: kwargs.pop(part, {}) for part in ("env", "network", "algorithm", "storage")}
    env = make(name, num_envs, **{"seed": seed, **options["env"]})
    policy = SoftActorCritic(env.observation_space, env.action_space, **{"hidden_sizes": (8,), **options["network"]})
    algorithm = kind(policy, **{"lr": 1e-2, **options["algorithm"]})
    sizes = {"storage_size": 600, "num_envs": num_envs, "batch_size": 16, **options["storage"]}
    storage = storage_type(env.observation_space, env.action_space, **sizes)
    parts = {"policy": policy, "algorithm": algorithm, "storage": storage}
    return OffPolicyAgent(env, seed=seed, **parts, **{"num_warmup_steps": 20, **kwargs})


def weights(trained: Agent) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trained.policy.parameters()]


def distributed_agent(env: Any = "Bandit", **kwargs: Any) -> DistributedAgent:
    """kwargs: folder writes a run there; env_kwargs are the environment's; the rest is the agent's."""
    torch.manual_seed(0)
    options, folder = kwargs.pop("env_kwargs", {}), kwargs.pop("folder", None)
    if isinstance(env, str):
        env = gym.make(f"tests.envs:{env}-v0", **options)
    run = Run(RunFolder(folder), checkpoint_interval=kwargs.pop("checkpoint_interval", None)) if folder else None
    return DistributedAgent(env, run=run, **{**SMALL, "hidden_dim": 8, "eval_episodes": 2, **kwargs})


def batches_of(agent: DistributedAgent) -> list[Any]:
    """Every batch that the agent goes on to learn from."""
    original, seen = agent._actors.next_batch, []

    def hooked(check: Any) -> Any:
        seen.append(original(check))
        return seen[-1]

    agent._actors.next_batch = hooked  # type: ignore[method-assign]
    return seen
