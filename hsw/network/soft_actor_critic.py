"""The networks of soft actor-critic: a squashed Gaussian, two critics and their targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.network.encoder import Encoder
from hsw.network.twin_critics import TwinCritics
from hsw.spaces import SpaceLike

LOG_STD_RANGE = (-20.0, 2.0)


class SoftActorCritic(TwinCritics):
    """SAC's networks (Haarnoja et al. 2018, arXiv:1812.05905).

    Args:
        observation_space, action_space, encoder, hidden_sizes, activation, normalize_obs: As in TwinCritics.
        distribution: "auto", the squashed Gaussian: the losses differentiate through its samples.

    Raises:
        ConfigError: If actions are not continuous and bounded.
    """

    algorithm = "SAC"

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (256, 256),
        activation: Literal["tanh", "relu", "elu"] = "relu",
        normalize_obs: bool = False,
        distribution: Literal["auto"] = "auto",
    ) -> None:
        if distribution != "auto":
            raise ConfigError("SAC's losses are those of a squashed Gaussian; leave distribution=auto")
        super().__init__(observation_space, action_space, encoder, hidden_sizes, activation, normalize_obs, 2)

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        mean, log_std = self._params(self.encode(obs))
        if not deterministic:
            mean = mean + torch.randn_like(mean) * log_std.exp()
        return self._to_env(mean.tanh()), {}

    def sample(self, x: Any) -> tuple[Tensor, Tensor]:
        """Actions in [-1, 1], [B, action_dim], by which gradients flow, and their log-probabilities, [B]."""
        mean, log_std = self._params(x)
        noise = torch.randn_like(mean)
        u = mean + noise * log_std.exp()
        return u.tanh(), squashed_log_prob(u, noise, log_std)

    def _params(self, x: Any) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(x).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


def squashed_log_prob(u: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """log pi(tanh u) for u = mean + noise * std, exact for any u (arXiv:1812.05905, appendix C).

    log(1 - tanh(u)^2) is 2 (log 2 - u - softplus(-2 u)), which does not round to log 0 where tanh u rounds to 1.

    Args:
        u: Before squashing, [B, A].
        noise: Standard normal, [B, A].
        log_std: [B, A].

    Returns:
        Log-densities of actions in (-1, 1), [B].
    """
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    return (gaussian - 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))).sum(-1)
