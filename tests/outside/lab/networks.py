"""An encoder, an action distribution, and a policy that is no class of hsw's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hsw.network import Categorical, make_distribution, make_encoder
from hsw.spaces import read_space


class Fourier(nn.Module):
    """Sines and cosines of the observation. hsw hands over the space."""

    def __init__(self, space: Any, num_waves: int = 4) -> None:
        super().__init__()
        waves = torch.arange(1, num_waves + 1).repeat(space.shape[0], 1)
        self.register_buffer("waves", torch.pi * waves.float())
        self.out_dim = 2 * waves.numel()

    def forward(self, obs: Tensor) -> Tensor:
        angles = (obs.unsqueeze(-1) * self.waves).flatten(1)
        return torch.cat([angles.sin(), angles.cos()], -1)


class Tempered(Categorical):
    """A softmax with a temperature. hsw hands over the space."""

    def __init__(self, space: Any, temperature: float = 1.0) -> None:
        super().__init__(space)
        self.temperature = temperature

    def choose(self, params: Tensor, deterministic: bool) -> tuple[Tensor, Tensor]:
        return super().choose(params / self.temperature, deterministic)

    def log_prob_and_entropy(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return super().log_prob_and_entropy(params / self.temperature, actions)


class LinearPolicy(nn.Module):
    """Two linear heads on one encoder: what the on-policy loop and the algorithm ask for, and nothing else."""

    extras = ("log_probs", "values")

    def __init__(self, observation_space: Any, action_space: Any, encoder: Any = "auto", distribution: Any = "auto"):
        super().__init__()
        self.encoder = make_encoder(encoder, read_space(observation_space), (16,), "tanh")
        self.distribution = make_distribution(read_space(action_space), distribution)
        self.policy_head = nn.Linear(self.encoder.out_dim, self.distribution.params_dim)
        self.value_head = nn.Linear(self.encoder.out_dim, 1)

    def initial_memory(self, num_envs: int) -> None:
        """It carries nothing from row to row."""

    def acting(self) -> AbstractContextManager[None]:
        """The weights stay as they are within it, of which this policy makes no use."""
        return nullcontext()

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.encoder(obs)
        actions, log_probs = self.distribution.choose(self.policy_head(features), deterministic)
        return actions, {"log_probs": log_probs, "values": self.value_head(features).squeeze(-1)}

    def value(self, obs: Any) -> Tensor:
        return self.value_head(self.encoder(obs)).squeeze(-1)

    def evaluate(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(obs)
        log_probs, entropies = self.distribution.log_prob_and_entropy(self.policy_head(features), actions)
        return log_probs, entropies, self.value_head(features).squeeze(-1)
