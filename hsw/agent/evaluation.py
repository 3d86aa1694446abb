"""Evaluation: N whole episodes of a policy, in an environment of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hsw.agent.extremes import finite_actions
from hsw.agent.protocols import ActingPolicy
from hsw.env import Episode, VectorEnv
from hsw.seeding import EVAL_POLICY, derive_seed, get_rng_state, set_rng_state
from hsw.transfer import to_device

log = logging.getLogger("hsw")
_LOOK = 1000  # rows


def evaluate(
    policy: ActingPolicy,
    env: VectorEnv,
    num_episodes: int,
    deterministic: bool,
    seed: int,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[VectorEnv], None] | None = None,
    on_episode: Callable[[int, int], None] = lambda done, total: None,
    max_episode_steps: int = 108_000,
) -> dict[str, Any] | None:
    """Play whole episodes and report their returns.

    Every environment plays its share of the episodes, so that short ones are not counted more often than long ones.
    The policy is in eval mode meanwhile, and the global generators are left as they were.

    Args:
        policy: Acts.
        env: An evaluation environment, fresh.
        num_episodes: N.
        deterministic: Take the most likely action.
        seed: Of the sampled actions.
        device: The policy's.
        stop: Asked at every row; True gives up.
        on_step: Called after reset and every row, for a recording.
        on_episode: Called with the number of episodes played, and N: at first and after each.
        max_episode_steps: About so many end an episode that may never end otherwise: it counts as it stands, and its
            environment plays no more of them. Half an hour of an Atari game, by default.

    Returns:
        mean, std, min, max and the list `returns` of undiscounted returns in the environment's own rewards, and
        `lengths`; `success`, the share of episodes whose last step reached the goal, if the environment tells;
        None if stopped.
    """
    rng, training = get_rng_state(), policy.training
    policy.train(False)
    torch.manual_seed(derive_seed(seed, EVAL_POLICY))
    try:
        index = np.arange(env.num_envs)
        shares = num_episodes // env.num_envs + (index < num_episodes % env.num_envs)  # of each environment
        rows = 0
        returns: list[float] = []
        lengths: list[int] = []
        successes: list[bool | None] = []

        def count(episode: Episode) -> None:
            shares[episode.env_index] -= 1
            returns.append(episode.episode_return)
            lengths.append(episode.length)
            successes.append(episode.success)
            on_episode(len(returns), num_episodes)

        on_episode(0, num_episodes)
        obs, memory = env.reset(), policy.initial_memory(env.num_envs)
        while (shares > 0).any():
            if on_step:
                on_step(env)
            if stop():
                return None
            with torch.inference_mode():
                actions, _ = policy.act(to_device(obs, device), deterministic, *([memory] if memory else []))
            step = env.step(finite_actions(policy, actions.cpu().numpy()))
            obs = step.obs
            if memory:
                rewards, valid = to_device((step.rewards, step.valid), device)
                memory.remember(actions, rewards, valid)
            for episode in env.pop_episodes():
                if shares[episode.env_index] > 0:
                    count(episode)
            rows += 1
            for episode in env.running_episodes() if rows % _LOOK == 0 else ():
                if shares[episode.env_index] > 0 and episode.length >= max_episode_steps:
                    log.warning("an episode of the evaluation is cut off after %d steps", episode.length)
                    count(episode)
                    shares[episode.env_index] = 0
    finally:
        set_rng_state(rng)
        policy.train(training)
    told = [success for success in successes if success is not None]
    success = {"success": float(np.mean(told))} if len(told) == len(returns) else {}
    return {
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0,
        "min": float(np.min(returns)),
        "max": float(np.max(returns)),
        **success,
        "returns": returns,
        "lengths": lengths,
    }
