"""What the policies of continuous off-policy algorithms share: an actor, two critics and their targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hsw.errors import ConfigError
from hsw.network.actor_critic import Policy
from hsw.network.encoder import Encoder, describe_encoder, make_encoder
from hsw.network.layers import ACTIVATIONS
from hsw.network.vector_input import VectorInput
from hsw.spaces import SpaceLike, SpaceSpec, read_space


class TwinCritics(Policy):
    """An actor and two critics (Fujimoto et al. 2018, arXiv:1802.09477), with target critics.

    Networks reckon with actions in [-1, 1]; act and the environment with those of the space, dimension by dimension.
    Vectors, and dicts of them, go straight into the networks; images, and what an encoder of one's own is given for,
    through an encoder that each network has for itself.

    Args:
        observation_space, action_space: In any form that read_space takes; actions are a Box with finite bounds.
        encoder: A name in EncoderName, or a callable that takes the SpaceSpec and returns a module with out_dim; auto,
            mlp and dict leave vectors to the networks.
        hidden_sizes, activation: Of each network.
        normalize_obs: Normalise vectors by the running mean and standard deviation of what was collected.
        actor_outputs: Numbers that the actor gives for each dimension of the actions.

    Raises:
        ConfigError: If actions are not continuous and bounded.
    """

    extras = ()
    action_types: ClassVar[tuple[str, ...]] = ("Box",)
    algorithm: ClassVar[str]  # for errors
    center: Tensor
    radius: Tensor

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder,
        hidden_sizes: Sequence[int],
        activation: str,
        normalize_obs: bool,
        actor_outputs: int,
    ) -> None:
        super().__init__()
        space, actions = read_space(observation_space), read_space(action_space)
        self.observation_space, self.hidden_sizes = space, tuple(hidden_sizes)
        if not actions.is_bounded:
            raise ConfigError(
                f"{self.algorithm} needs continuous actions between finite bounds, and these are {actions.type} in "
                f"[{actions.low}, {actions.high}]; wrap the environment to bound them"
            )
        low, high = (torch.tensor(bound).expand(actions.shape) for bound in (actions.low, actions.high))
        self.action_shape, self.action_dim = actions.shape, math.prod(actions.shape)
        self.register_buffer("center", ((high + low) / 2).flatten().float(), persistent=False)
        self.register_buffer("radius", ((high - low) / 2).flatten().float(), persistent=False)
        self.inputs = VectorInput(space, normalize_obs) if VectorInput.fits(space, encoder) else None
        if self.inputs is None and normalize_obs:
            raise ConfigError("normalize_obs needs observations that are vectors of numbers, or dicts of them")

        def network(extra: int, out_dim: int) -> _Network:
            return _Network(space, self.inputs, encoder, hidden_sizes, activation, extra, out_dim)

        self.actor = network(0, actor_outputs * self.action_dim)
        self.critics = nn.ModuleList(network(self.action_dim, 1) for _ in range(2))
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def encoder_names(self) -> dict[str, str]:
        if self.inputs is None:
            return describe_encoder(self.actor.encoder, self.observation_space)
        return self.inputs.names("-".join(map(str, self.hidden_sizes)))

    def observe(self, obs: Any) -> None:
        if self.inputs is not None:
            self.inputs.observe(obs)

    def random_actions(self, num: int) -> Tensor:
        """Actions drawn uniformly between the bounds, [num, *action_shape], from torch's global generator."""
        return self._to_env(torch.rand(num, self.action_dim, device=self.center.device) * 2 - 1)

    def encode(self, obs: Any) -> Any:
        """What the networks take for obs: one vector each, [B, D], or images as they are."""
        return obs if self.inputs is None else self.inputs(obs)

    def values(self, x: Any, actions: Tensor) -> Tensor:
        """Q of both critics, [2, B], for actions in [-1, 1]."""
        return self._values(self.critics, x, actions)

    def target_values(self, x: Any, actions: Tensor) -> Tensor:
        """Q of both target critics, [2, B]."""
        return self._values(self.target_critics, x, actions)

    def _values(self, critics: nn.ModuleList, x: Any, actions: Tensor) -> Tensor:
        if self.inputs is None:
            return torch.stack([critic(x, actions) for critic in critics]).squeeze(-1)
        joined = torch.cat([x, actions], -1)
        return torch.stack([critic(joined) for critic in critics]).squeeze(-1)

    def to_unit(self, actions: Tensor) -> Tensor:
        """Actions of the space, [B, *action_shape], in [-1, 1], [B, action_dim]."""
        return (actions.flatten(1) - self.center) / self.radius

    def _to_env(self, actions: Tensor) -> Tensor:
        return torch.unflatten(actions * self.radius + self.center, -1, self.action_shape)


class _Network(nn.Module):
    """Linear layers with torch's own initialisation, after an encoder where observations are images."""

    def __init__(
        self,
        space: SpaceSpec,
        inputs: VectorInput | None,
        encoder: Any,
        hidden_sizes: Sequence[int],
        activation: str,
        extra: int,
        out_dim: int,
    ) -> None:
        super().__init__()
        self.encoder: Any = None if inputs else make_encoder(encoder, space, hidden_sizes, activation)
        source: Any = self.encoder if inputs is None else inputs
        width = source.out_dim + extra
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), ACTIVATIONS[activation]()]
            width = size
            if isinstance(layers[-1], nn.ReLU):
                layers[-1].inplace = True
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_dim))

    def forward(self, x: Any, actions: Tensor | None = None) -> Tensor:
        if self.encoder is not None:
            x = self.encoder(x)
        out: Tensor = self.layers(x if actions is None else torch.cat([x, actions], -1))
        return out
