"""DQN's network: the value of every action, and a target."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.network.actor_critic import Policy, seen_space
from hsw.network.distribution import masked
from hsw.network.encoder import Encoder, describe_encoder, make_encoder
from hsw.spaces import SpaceLike, SpaceSpec, read_space, split_mask


class QNetwork(Policy):
    """Q(s, a) of every action on one encoder (Mnih et al. 2015, doi:10.1038/nature14236), and a target network.

    Args:
        observation_space, action_space: In any form that read_space takes; actions are Discrete.
        encoder: A name in EncoderName, or a callable that takes the SpaceSpec and returns a module with out_dim.
        hidden_sizes, activation: Of an MLP encoder.
        dueling: Q = V + A - mean A, each on a hidden layer of its own (Wang et al. 2016, arXiv:1511.06581).
        dueling_size: Of these hidden layers.
        distribution: "auto": the greedy action, and a random one with probability epsilon.

    Raises:
        ConfigError: If actions are not Discrete.
    """

    extras = ()
    action_types: ClassVar[tuple[str, ...]] = ("Discrete",)
    epsilon: Tensor

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (128, 128),
        activation: Literal["tanh", "relu", "elu"] = "relu",
        dueling: bool = False,
        dueling_size: Annotated[int, Range(1)] = 128,
        distribution: Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if distribution != "auto":
            raise ConfigError("DQN's actions are greedy or random; leave distribution=auto")
        (space, self.masks_actions), actions = seen_space(observation_space), read_space(action_space)
        if actions.type != "Discrete":
            raise ConfigError(f"DQN needs Discrete actions, and these are {actions.type}; take agent=sac or agent=ppo")
        self.observation_space, self.num_actions = space, actions.nvec[0]
        hidden = dueling_size if dueling else 0
        self.online = _Values(space, self.num_actions, encoder, hidden_sizes, activation, hidden)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.register_buffer("epsilon", torch.ones(()))  # the algorithm sets it, and a checkpoint holds it

    def encoder_names(self) -> dict[str, str]:
        return describe_encoder(self.online.encoder, self.observation_space)

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        actions = self.values(obs).argmax(-1)
        if not deterministic:
            explores = torch.rand(actions.shape, device=actions.device) < self.epsilon
            actions = torch.where(explores, self.random_actions(len(actions), obs), actions)
        return actions, {}

    def random_actions(self, num: int, obs: Any = None) -> Tensor:
        """Actions drawn uniformly, [num], from torch's global generator; of those that obs allows."""
        if self.masks_actions:
            mask: Tensor = split_mask(obs)[1]
            return mask.float().multinomial(1).squeeze(-1)
        return torch.randint(self.num_actions, (num,), device=self.epsilon.device)

    def values(self, obs: Any) -> Tensor:
        """Q of every action, [B, A]; next to nothing where an action is not allowed."""
        return self._values(self.online, obs)

    def target_values(self, obs: Any) -> Tensor:
        """The target network's Q of every action, [B, A], likewise."""
        return self._values(self.target, obs)

    def _values(self, network: _Values, obs: Any) -> Tensor:
        rest, mask = split_mask(obs) if self.masks_actions else (obs, None)
        values: Tensor = network(rest)
        if mask is None:
            return values
        allowed: Tensor = masked(values, mask)
        return allowed


class _Values(nn.Module):
    """An encoder and the values of actions; dueling where the hidden layers of V and A have a size."""

    def __init__(
        self,
        space: SpaceSpec,
        num_actions: int,
        encoder: Encoder,
        hidden_sizes: Sequence[int],
        activation: str,
        dueling_size: int,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, space, hidden_sizes, activation)
        width = self.encoder.out_dim

        def head(outputs: int) -> nn.Module:
            if not dueling_size:
                return nn.Linear(width, outputs)
            return nn.Sequential(nn.Linear(width, dueling_size), nn.ReLU(), nn.Linear(dueling_size, outputs))

        self.advantages = head(num_actions)
        self.value = head(1) if dueling_size else None

    def forward(self, obs: Any) -> Tensor:
        features = self.encoder(obs)
        values: Tensor = self.advantages(features)
        if self.value is None:
            return values
        dueling: Tensor = self.value(features) + values - values.mean(-1, keepdim=True)
        return dueling
