"""The policies of the on-policy algorithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hsw.bounds import Range
from hsw.network.distribution import FEW_ROWS, DistributionChoice, make_distribution
from hsw.network.encoder import Encoder, describe_encoder, make_encoder, sees_image
from hsw.network.layers import orthogonal
from hsw.network.snapshot import Snapshot
from hsw.spaces import SpaceLike, SpaceSpec, read_space, split_mask, without_mask


class Memory(ABC):
    """What a policy carries from one row of its environments to the next."""

    @abstractmethod
    def remember(self, actions: Tensor, rewards: Tensor, valid: Tensor) -> None:
        """Take note of the step that followed: its actions, rewards, and where it was none but a reset, [N, ...]."""

    def state_dict(self) -> dict[str, Any]:
        """What continues it on resume."""
        raise NotImplementedError(f"{type(self).__name__} has no state_dict, which OnPolicyAgent saves")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        raise NotImplementedError(f"{type(self).__name__} has no load_state_dict")


class Policy(nn.Module, ABC):
    """Networks that act. The keys of act's extras are the fields that storage.add takes, named in `extras`."""

    extras: ClassVar[tuple[str, ...]]

    @abstractmethod
    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Choose actions.

        Args:
            obs: [B, *shape], or a dict of them.
            deterministic: Take the mode of the distribution instead of a sample.

        Returns:
            Actions, [B, *action_shape], and the extras, [B] each.
        """

    def observe(self, obs: Any) -> None:
        """Take note of new observations, [K, *shape] or a dict of them, that training has collected."""
        return

    def initial_memory(self, num_envs: int) -> Memory | None:
        """What act takes as its third argument, at the start of N episodes; None where it takes none."""
        return None

    def acting(self) -> AbstractContextManager[None]:
        """Within this context the weights stay as they are, which a policy may use to act faster."""
        return nullcontext()

    def encoder_names(self) -> dict[str, str]:
        """Which network reads which part of an observation, "" if it has one only; empty if a policy does not tell."""
        return {}


def seen_space(observation_space: SpaceLike) -> tuple[SpaceSpec, bool]:
    """What encoders see of an observation, and whether a mask of actions comes with it."""
    space = read_space(observation_space)
    return (without_mask(space) if space.masked else space), space.masked


class _TwoEncoders(Policy):
    """A policy whose heads read one encoder each, or the same one where value_encoder is None."""

    observation_space: SpaceSpec  # what the encoders see
    distribution: Any
    masks_actions: bool
    encoder: Any
    value_encoder: Any
    policy_head: nn.Linear
    value_head: nn.Linear
    _snapshot: Snapshot | None = None  # while acting

    @contextmanager
    def acting(self) -> Iterator[None]:
        self._snapshot = Snapshot.of((self.encoder, self.value_encoder), (self.policy_head, self.value_head))
        try:
            yield
        finally:
            self._snapshot = None

    def encoder_names(self) -> dict[str, str]:
        return describe_encoder(self.encoder, self.observation_space)

    def _params_values_features(self, obs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The distribution's parameters, [B, params], the values, [B], and what the policy head read."""
        if self.masks_actions:
            rest, mask = split_mask(obs)
            params, values, features = self._read(rest)
            return self.distribution.masked(params, mask), values, features
        return self._read(obs)

    def _read(self, obs: Any) -> tuple[Tensor, Tensor, Tensor]:
        if self._snapshot is not None and len(obs) <= FEW_ROWS:
            (params, values), features = self._snapshot(obs)
            return params, values[:, 0], features
        features = self.encoder(obs)
        value_features = features if self.value_encoder is None else self.value_encoder(obs)
        return self.policy_head(features), self.value_head(value_features).squeeze(-1), features


class ActorCritic(_TwoEncoders):
    """A policy and a value head on one encoder, or on one encoder each (PPO).

    Args:
        observation_space, action_space: In any form that read_space takes.
        encoder: A name in EncoderName, or a callable that takes the SpaceSpec and returns a module with out_dim.
        hidden_sizes, activation: Of the MLPs.
        shared: One encoder for both heads; None shares it for images and for nothing else, as PPO's authors do. Images
            of other numbers than bytes count as such where encoder is auto.
        distribution: Of the actions: a name in DistributionName, or a callable that takes the action space's SpaceSpec
            and returns a Distribution.
    """

    extras: ClassVar[tuple[str, ...]] = ("log_probs", "values")

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (64, 64),
        activation: Literal["tanh", "relu", "elu"] = "tanh",
        shared: bool | None = None,
        distribution: DistributionChoice = "auto",
    ) -> None:
        super().__init__()
        space, self.masks_actions = seen_space(observation_space)
        self.observation_space = space
        if shared is None:
            shared = sees_image(space, encoder)
        self.distribution = make_distribution(read_space(action_space), distribution)
        self.encoder = make_encoder(encoder, space, hidden_sizes, activation)
        self.value_encoder = None if shared else make_encoder(encoder, space, hidden_sizes, activation)
        self.policy_head = orthogonal(nn.Linear(self.encoder.out_dim, self.distribution.params_dim), 0.01)
        self.value_head = orthogonal(nn.Linear(self.encoder.out_dim, 1), 1.0)

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        params, values, _ = self._params_values_features(obs)
        actions, log_probs = self.distribution.choose(params, deterministic)
        return actions, {"log_probs": log_probs, "values": values}

    def value(self, obs: Any) -> Tensor:
        """V(obs), [B]."""
        return self._params_values_features(obs)[1]

    def evaluate(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of actions, entropies and values under the current weights, [B] each."""
        params, values, _ = self._params_values_features(obs)
        return *self.distribution.log_prob_and_entropy(params, actions), values


class DecoupledActorCritic(_TwoEncoders):
    """DAAC's two networks (Raileanu & Fergus 2021, arXiv:2102.10330), which share nothing.

    The policy network has an encoder, a policy head and an advantage head: one linear layer on the policy's features
    and the action. The value network has its own encoder.

    Args:
        observation_space, action_space, encoder, hidden_sizes, activation, distribution: As in ActorCritic.
    """

    extras = ("log_probs", "values", "adv_preds")

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (64, 64),
        activation: Literal["tanh", "relu", "elu"] = "tanh",
        distribution: DistributionChoice = "auto",
    ) -> None:
        super().__init__()
        space, self.masks_actions = seen_space(observation_space)
        self.observation_space = space
        self.distribution = make_distribution(read_space(action_space), distribution)
        self.encoder = make_encoder(encoder, space, hidden_sizes, activation)
        self.policy_head = orthogonal(nn.Linear(self.encoder.out_dim, self.distribution.params_dim), 0.01)
        inputs = self.encoder.out_dim + self.distribution.action_dim
        self.advantage_head = orthogonal(nn.Linear(inputs, 1), 1.0)
        self.value_encoder = make_encoder(encoder, space, hidden_sizes, activation)
        self.value_head = orthogonal(nn.Linear(self.value_encoder.out_dim, 1), 1.0)

    def policy_parameters(self) -> list[nn.Parameter]:
        """Encoder, policy head and advantage head: what the policy phase trains."""
        value = {id(parameter) for parameter in self.value_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in value]

    def value_parameters(self) -> list[nn.Parameter]:
        """The value network: what the value phase trains."""
        return [*self.value_encoder.parameters(), *self.value_head.parameters()]

    def _advantages(self, features: Tensor, actions: Tensor) -> Tensor:
        known = torch.cat([features, self.distribution.features(actions)], -1)
        advantages: Tensor = self.advantage_head(known)
        return advantages.squeeze(-1)

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        params, values, features = self._params_values_features(obs)
        actions, log_probs = self.distribution.choose(params, deterministic)
        return actions, {
            "log_probs": log_probs,
            "values": values,
            "adv_preds": self._advantages(features, actions),
        }

    def value(self, obs: Any) -> Tensor:
        """V(obs), [B], from the value network alone."""
        obs = split_mask(obs)[0] if self.masks_actions else obs
        values: Tensor = self.value_head(self.value_encoder(obs))
        return values.squeeze(-1)

    def evaluate(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of actions, entropies and advantage predictions under the current weights, [B] each."""
        obs, mask = split_mask(obs) if self.masks_actions else (obs, None)
        features = self.encoder(obs)
        params = self.policy_head(features)
        params = params if mask is None else self.distribution.masked(params, mask)
        return *self.distribution.log_prob_and_entropy(params, actions), self._advantages(features, actions)
