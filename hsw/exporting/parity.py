"""Whether an exported policy does what the run's own does, on observations of an evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hsw.env import VectorEnv
from hsw.exporting.formats import Runner
from hsw.exporting.graph import ActingGraph, Port, parts, telling
from hsw.network import Policy
from hsw.network.distribution import Bernoulli, MultiCategorical
from hsw.spaces import SpaceSpec, tree_map
from hsw.trained import TrainedPolicy

CLOSE = 1e-5  # of numbers, relative to those above 1
APART = 1e-4  # the two best: nearer ones may change places


def hold(trained: TrainedPolicy, graph: ActingGraph, env: VectorEnv, run: Runner, observations: int) -> dict[str, Any]:
    """Let the run's own policy play, and the exported one act on the same observations.

    Args:
        trained: Plays, with the run's own normalisation and memory.
        graph: What was exported.
        env: Of the run, fresh, which does not normalise.
        run: What was exported, as it was written.
        observations: How many, at least.

    Returns:
        observations; max_difference, of what it chose by or of the actions themselves, relative above 1;
        equal_actions; close_calls, actions that differ where the two best were nearer than APART; and equal, whether
        all is within these bounds.
    """
    size, policy = env.num_envs, trained.policy
    obs, memory = env.reset(), policy.initial_memory(size)
    inputs = {port.name: _rows(port, size) for port in graph.inputs}
    largest, equal, close, total = 0.0, 0, 0, 0
    while total < observations:
        inputs |= dict(_named(graph.space, obs))
        outputs = run(inputs)
        with torch.inference_mode(), telling(policy) as told:
            actions, _ = policy.act(
                tree_map(torch.from_numpy, trained.normalized(obs)), True, *([memory] * bool(memory))
            )
        wanted = env.actions_to_env(actions.numpy())
        known = {name: value.numpy() for name, value in told.items()} or {"action": wanted}
        largest = max(largest, *(_difference(outputs[name], value) for name, value in known.items()))
        same = np.isclose(outputs["action"], wanted, rtol=CLOSE, atol=CLOSE).reshape(size, -1).all(1)
        near = _near(policy, next(iter(known.values()))) if told else np.zeros(size, bool)
        equal, close, total = equal + int(same.sum()), close + int((near & ~same).sum()), total + size
        step = env.step(actions.numpy())
        obs = step.obs
        if memory is not None:
            memory.remember(actions, torch.from_numpy(step.rewards), torch.from_numpy(step.valid))
            inputs |= {name.removeprefix("next_"): value for name, value in outputs.items() if name.startswith("next_")}
            inputs |= {"start": ~step.valid, "last_reward": step.rewards, "last_action": actions.numpy()}
    found = {"observations": total, "max_difference": largest, "equal_actions": equal, "close_calls": close}
    return {**found, "equal": largest <= CLOSE and equal + close == total}


def _rows(port: Port, size: int) -> np.ndarray:
    """An input's example with another number of environments."""
    first = port.example.narrow(port.batch, 0, 1)
    shape = list(first.shape)
    shape[port.batch] = size
    rows: np.ndarray = first.expand(shape).contiguous().numpy()
    return rows


def _named(space: SpaceSpec, obs: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, part in parts(space):
        value = obs
        for key in name.split(".")[1:]:
            value = value[key]
        found[name] = np.ascontiguousarray(value, part.dtype)
    return found


def _difference(values: np.ndarray, wanted: np.ndarray) -> float:
    wide, own = wanted.astype(np.float64), values.astype(np.float64)
    return float(np.max(np.abs(own - wide) / np.maximum(1.0, np.abs(wide)), initial=0.0))


def _near(policy: Policy, scores: np.ndarray) -> np.ndarray:
    """Where one of an observation's choices is a close call, [B]."""
    distribution = getattr(policy, "distribution", None)
    if isinstance(distribution, Bernoulli):
        margins = [np.abs(scores)]
    else:
        sizes = distribution.nvec if isinstance(distribution, MultiCategorical) else [scores.shape[-1]]
        ordered = [np.sort(part, -1) for part in np.split(scores, np.cumsum(sizes)[:-1], -1)]
        margins = [part[..., -1:] - part[..., -2:-1] for part in ordered if part.shape[-1] > 1]
    nearest: np.ndarray = np.concatenate([*margins, np.full((len(scores), 1), np.inf)], -1).min(-1)
    return nearest < APART
