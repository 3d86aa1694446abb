"""The networks of TD3: a deterministic actor, two critics, and targets of all three."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.network.encoder import Encoder
from hsw.network.twin_critics import TwinCritics
from hsw.spaces import SpaceLike


class DeterministicActorCritic(TwinCritics):
    """TD3's networks (Fujimoto et al. 2018, arXiv:1802.09477).

    Args:
        observation_space, action_space, encoder, hidden_sizes, activation, normalize_obs: As in TwinCritics.
        exploration_noise: Standard deviation of what is added to actions in [-1, 1] while training collects.
        distribution: "auto": there is none.

    Raises:
        ConfigError: If actions are not continuous and bounded.
    """

    algorithm = "TD3"

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (256, 256),
        activation: Literal["tanh", "relu", "elu"] = "relu",
        normalize_obs: bool = False,
        exploration_noise: Annotated[float, Range(0)] = 0.1,
        distribution: Literal["auto"] = "auto",
    ) -> None:
        if distribution != "auto":
            raise ConfigError("TD3's actor is deterministic; leave distribution=auto")
        super().__init__(observation_space, action_space, encoder, hidden_sizes, activation, normalize_obs, 1)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.exploration_noise = exploration_noise

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        actions = self.actions(self.encode(obs))
        if not deterministic:
            actions = (actions + torch.randn_like(actions) * self.exploration_noise).clamp(-1, 1)
        return self._to_env(actions), {}

    def actions(self, x: Any) -> Tensor:
        """The actor's actions in [-1, 1], [B, action_dim]."""
        chosen: Tensor = self.actor(x).tanh()
        return chosen

    def target_actions(self, x: Any) -> Tensor:
        """The target actor's, likewise."""
        chosen: Tensor = self.target_actor(x).tanh()
        return chosen
