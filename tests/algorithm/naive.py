"""What an update should do, written from the papers: losses in Python loops, Adam and clipping by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from hsw.algorithm import A2C, DAAC, PPO
from hsw.network import ActorCritic, DecoupledActorCritic

OBS, ACTION = Box(-1, 1, (4,), np.float32), Discrete(3)
T, N = 6, 4
POLICIES = {PPO: ActorCritic, A2C: ActorCritic, DAAC: DecoupledActorCritic}


def collected(kind: type, seed: int = 0, **kwargs: Any) -> tuple[Any, Any]:
    """An algorithm, and a rollout from a policy that has moved a little since: ratios on both sides of the clip."""
    torch.manual_seed(seed)
    policy = POLICIES[kind](OBS, ACTION, hidden_sizes=(8,))
    torch.nn.init.normal_(policy.policy_head.weight)
    storage = kind.storage_type(OBS, ACTION, "cpu", T, N)
    obs = torch.randn(T + 1, N, 4)
    flags = torch.rand(3, T, N) < 0.15
    for t in range(T):
        with torch.no_grad():
            actions, extras = policy.act(obs[t])
        rewards = torch.randn(N) * 3
        storage.add(obs[t], actions, rewards, flags[0, t], flags[1, t], obs[t + 1], valid=~flags[2, t], **extras)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    storage.before_gradients(policy, None)
    storage.advantages[~storage.valid] = 1e3  # must be seen by nobody
    return kind(policy, **kwargs), storage


def same_batches(storage: Any) -> Any:
    """A copy of the storage that will yield the same batches."""
    return copy.deepcopy(storage)


def mean(terms: list[Any]) -> Any:
    return sum(terms) / len(terms)


def surrogate(log_probs: Any, old: Any, advantages: Any, clip_range: float) -> Any:
    terms = []
    for log_prob, old_log_prob, advantage in zip(log_probs, old, advantages, strict=True):
        ratio = (log_prob - old_log_prob).exp()
        clipped = min(max(ratio.item(), 1 - clip_range), 1 + clip_range)
        held = ratio if ratio.item() == clipped else torch.tensor(clipped)
        terms.append(-min(ratio * advantage, held * advantage, key=lambda term: term.item()))
    return mean(terms)


def squared_error(values: Any, old: Any, returns: Any, clip_range: float | None) -> Any:
    terms = []
    for value, old_value, target in zip(values, old, returns, strict=True):
        error = (value - target) ** 2
        change = (value - old_value).item()
        if clip_range is not None and abs(change) > clip_range:
            held = float(old_value) + (clip_range if change > 0 else -clip_range)
            error = max(error, (torch.tensor(held) - target) ** 2, key=lambda term: term.item())
        terms.append(error)
    return mean(terms)


def entropy(logits: Any) -> Any:
    return mean([-sum(p * p.log() for p in row.softmax(0)) for row in logits])


def normalized(numbers: Any) -> Any:
    """By the sample's mean and standard deviation."""
    numbers = [float(x) for x in numbers]
    average = sum(numbers) / len(numbers)
    std = (sum((x - average) ** 2 for x in numbers) / (len(numbers) - 1)) ** 0.5
    return [(x - average) / (std + 1e-8) for x in numbers], average, std


class Descent:
    """Adam (Kingma & Ba 2015, algorithm 1) after clipping the gradient's global norm."""

    def __init__(self, parameters: list[Any], lr: float, max_grad_norm: float, eps: float = 1e-5) -> None:
        self.parameters, self.lr, self.max_grad_norm, self.eps = parameters, lr, max_grad_norm, eps
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, loss: Any) -> float:
        gradients = torch.autograd.grad(loss, self.parameters)
        norm = sum(float((g**2).sum()) for g in gradients) ** 0.5
        scale = min(1.0, self.max_grad_norm / (norm + 1e-6))
        self.steps += 1
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
                self.m[i] = 0.9 * self.m[i] + 0.1 * scale * g
                self.v[i] = 0.999 * self.v[i] + 0.001 * (scale * g) ** 2
                m, v = self.m[i] / (1 - 0.9**self.steps), self.v[i] / (1 - 0.999**self.steps)
                p -= self.lr * m / (v.sqrt() + self.eps)
        return norm


def weights(modules: Any) -> list[Any]:
    return [parameter.detach().clone() for parameter in modules]
