"""Whether a truncation is taken for an end, or what comes after it for what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.agent import Agent
from hsw.checking.problems import value_of


def fix_values(agent: Agent, function: Callable[[Any], Tensor]) -> bool:
    """Let a policy value observations as a function does; whether it is one that can be told so."""
    policy: Any = agent.policy
    if not hasattr(policy, "value"):
        return False
    act = policy.act

    def acting(obs: Any, *args: Any, **kwargs: Any) -> Any:
        actions, extras = act(obs, *args, **kwargs)
        if "values" in extras:
            extras = {**extras, "values": function(obs).to(extras["values"])}
        return actions, extras

    original = policy.value

    def value(obs: Any, *args: Any) -> Any:
        told = original(obs, *args)
        if torch.is_grad_enabled():  # it is learnt
            return told
        return function(obs).to(told) if isinstance(told, Tensor) and told.ndim == 1 else told

    policy.act, policy.value = acting, value
    return True


def errors_of_returns(agent: Agent) -> Callable[[], dict[str, float] | None]:
    """How far returns are from the values, in an environment where these are right. A `prepare` of a Session.

    Its answer has the largest error in steps that ended an episode, and in the others; None of a storage whose batches
    have no returns.
    """
    if not fix_values(agent, lambda obs: value_of(obs)):
        return lambda: None
    errors = {"ends": 0.0, "others": 0.0}
    told = [False]
    ends: set[bytes] = set()
    storage: Any = agent.storage
    original, add = storage.on_batch, storage.add

    def added(
        obs: Any, actions: Any, rewards: Any, terminateds: Any, truncateds: Any, *rest: Any, **extras: Any
    ) -> Any:
        for n in np.flatnonzero(np.asarray(terminateds) | np.asarray(truncateds)):
            ends.add(np.asarray(obs[n], np.float32).tobytes())
        return add(obs, actions, rewards, terminateds, truncateds, *rest, **extras)

    def seen(batch: Any) -> Any:
        fields = batch if isinstance(batch, dict) else vars(batch)
        if "returns" in fields:
            told[0] = True
            wrong = (fields["returns"].flatten() - value_of(fields["obs"])).abs()
            if "advantages" in fields:
                # Where a storage normalises them, they tell nothing.
                wrong = torch.maximum(wrong, fields["advantages"].flatten().abs()) if wrong.max() > 1e-2 else wrong
            for row, error in zip(fields["obs"], wrong.tolist(), strict=True):
                kind = "ends" if np.asarray(row, np.float32).tobytes() in ends else "others"
                errors[kind] = max(errors[kind], error)
        return original(batch)

    storage.on_batch, storage.add = seen, added
    return lambda: errors if told[0] else None


def learnt_value(agent: Agent) -> Callable[[], float | None]:
    """What the value of a constant observation has become. A `prepare` of a Session."""

    def tell() -> float | None:
        obs = agent._tensors(agent.env.reset())
        policy: Any = agent.policy
        policy.train(False)
        with torch.no_grad():
            if hasattr(policy, "value"):
                memory = policy.initial_memory(agent.env.num_envs)
                values = None if memory is not None else policy.value(obs)
            elif hasattr(policy, "encode") and hasattr(policy, "to_unit"):
                actions, _ = policy.act(obs)
                values = policy.values(policy.encode(obs), policy.to_unit(actions))
            elif hasattr(policy, "values"):
                values = policy.values(obs)
            else:
                values = None
        return float(values.float().mean()) if isinstance(values, Tensor) else None

    return tell
