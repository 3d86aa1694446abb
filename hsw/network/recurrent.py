"""IMPALA's networks, with or without a memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from hsw.bounds import Range
from hsw.network.actor_critic import Memory, Policy, seen_space
from hsw.network.distribution import DistributionChoice, make_distribution
from hsw.network.encoder import Encoder, describe_encoder, make_encoder
from hsw.network.layers import orthogonal
from hsw.network.snapshot import Snapshot
from hsw.spaces import SpaceLike, leaves, read_space, split_mask, tree_map

# Multiply-adds of a layer: with more it is arithmetic that counts, and NumPy's product may take threads for itself.
SMALL = 2**18


class RecurrentMemory(Memory):
    """What N environments carry from row to row: last actions and rewards, episode starts, and the LSTM's state.

    Attributes:
        last_actions: What led to the present observations, [N, *action_shape].
        last_rewards: Likewise, [N].
        starts: The present observation is its episode's first, [N].
        core: The LSTM's hidden and cell state, [1, N, H] each; empty without one.
    """

    def __init__(self, last_actions: Tensor, core: tuple[Tensor, ...]) -> None:
        num_envs = len(last_actions)
        self.last_actions = last_actions
        self.last_rewards = torch.zeros(num_envs, device=last_actions.device)
        self.starts = torch.ones(num_envs, dtype=torch.bool, device=last_actions.device)
        self.core = core

    def remember(self, actions: Tensor, rewards: Tensor, valid: Tensor) -> None:
        # After a reset row an episode begins, of which nothing is known yet.
        wrap: Any = lambda value: value
        known: tuple[Any, Any, Any] = actions, rewards, valid
        if (
            all(part.is_cpu for part in known) and not torch.compiler.is_compiling()
        ):  # the same at a quarter of torch's cost
            wrap, known = torch.from_numpy, tuple(part.numpy() for part in known)
        actions, rewards, valid = known
        shape = (-1, *[1] * (actions.ndim - 1))
        self.starts = wrap(~valid)
        self.last_actions, self.last_rewards = wrap(actions * valid.reshape(shape)), wrap(rewards * valid)


class RecurrentActorCritic(Policy):
    """IMPALA's policy and value heads on one encoder (Espeholt et al. 2018, arXiv:1802.01561, figure 3).

    Args:
        observation_space, action_space: In any form that read_space takes.
        encoder: A name in EncoderName, or a callable that takes the SpaceSpec and returns a module with out_dim.
        hidden_sizes, activation: Of an MLP encoder.
        lstm_size: Width of an LSTM between encoder and heads; 0 has none.
        last_action_reward: The last action, one-hot, and the last reward, clipped to ±1, are inputs too.
        distribution: As in ActorCritic.
    """

    extras = ("log_probs",)
    _snapshot: Snapshot | None = None  # while acting, of the encoder, and of the policy head if that is next

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (64, 64),
        activation: Literal["tanh", "relu", "elu"] = "tanh",
        lstm_size: Annotated[int, Range(0)] = 0,
        last_action_reward: bool = True,
        distribution: DistributionChoice = "auto",
    ) -> None:
        super().__init__()
        self.observation_space, self.masks_actions = seen_space(observation_space)
        self.action_space = read_space(action_space)
        self.distribution = make_distribution(self.action_space, distribution)
        self.encoder = make_encoder(encoder, self.observation_space, hidden_sizes, activation)
        self.last_action_reward = last_action_reward
        width = self.encoder.out_dim + (self.distribution.action_dim + 1 if last_action_reward else 0)
        self.lstm = nn.LSTM(width, lstm_size) if lstm_size else None
        width = lstm_size or width
        self.policy_head = orthogonal(nn.Linear(width, self.distribution.params_dim), 0.01)
        self.value_head = orthogonal(nn.Linear(width, 1), 1.0)

    def encoder_names(self) -> dict[str, str]:
        return describe_encoder(self.encoder, self.observation_space)

    def initial_memory(self, num_envs: int) -> RecurrentMemory:
        device = self.value_head.weight.device
        actions = self.action_space.empty(num_envs, device=device).zero_()
        size = self.lstm.hidden_size if self.lstm else 0
        core = tuple(torch.zeros(1, num_envs, size, device=device) for _ in range(2 if self.lstm else 0))
        return RecurrentMemory(actions, core)

    @contextmanager
    def acting(self) -> Iterator[None]:
        alone = self.lstm is None and not self.last_action_reward
        self._snapshot = Snapshot.of([self.encoder], [self.policy_head] if alone else [])
        try:
            yield
        finally:
            self._snapshot = None

    def act(
        self, obs: Any, deterministic: bool = False, memory: Memory | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Choose actions; the memory is taken one observation further.

        Args:
            obs: [B, *shape], or a dict of them.
            deterministic: Take the mode of the distribution instead of a sample.
            memory: Of these environments; None acts as at an episode's start.
        """
        num_envs = next(leaves(obs)).shape[0]  # len would fix the size of an exported batch
        own = memory if isinstance(memory, RecurrentMemory) else self.initial_memory(num_envs)
        seen, mask = split_mask(obs) if self.masks_actions else (obs, None)
        small, features = self._snapshot, None
        heads: list[Tensor] = []
        if small is not None and num_envs * small.most_multiplications <= SMALL:
            heads, features = small(seen)
        if heads:
            params = heads[0]
        else:
            x = self._inputs(seen, own.last_actions, own.last_rewards, own.starts, features)
            if self.lstm is not None:
                x, own.core = self._step(x, own.starts, own.core)
            params = self.policy_head(x)
        params = params if mask is None else self.distribution.masked(params, mask)
        actions, log_probs = self.distribution.choose(params, deterministic)
        return actions, {"log_probs": log_probs}

    def unroll(
        self, obs: Any, last_actions: Tensor, last_rewards: Tensor, starts: Tensor, core: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Go through whole windows of time.

        Args:
            obs: [T, B, *shape], or a dict of them.
            last_actions, last_rewards, starts: As in RecurrentMemory, [T, B, ...].
            core: The LSTM's state before the first row, [1, B, H] each; empty without one.

        Returns:
            The distribution's parameters, [T, B, P], and the values, [T, B].
        """
        num_steps, num_envs = starts.shape
        obs, mask = split_mask(obs) if self.masks_actions else (obs, None)
        flat_obs = tree_map(lambda part: part.flatten(0, 1), obs)
        flat = flat_obs, last_actions.flatten(0, 1), last_rewards.flatten(), starts.flatten()
        x = torch.unflatten(self._inputs(*flat), 0, (num_steps, num_envs))
        if self.lstm is not None:
            rows = []
            for t in range(num_steps):  # nothing flows across a reset
                row, core = self._step(x[t], starts[t], core)
                rows.append(row)
            x = torch.stack(rows)
        params: Tensor = self.policy_head(x)
        params = params if mask is None else self.distribution.masked(params, mask)
        return params, self.value_head(x).squeeze(-1)

    def _inputs(
        self, obs: Any, last_actions: Tensor, last_rewards: Tensor, starts: Tensor, features: Tensor | None = None
    ) -> Tensor:
        if features is None:
            features = self.encoder(obs)
        if not self.last_action_reward:
            return features
        actions = self.distribution.features(last_actions) * ~starts.unsqueeze(-1)
        return torch.cat([features, actions, last_rewards.clamp(-1, 1).unsqueeze(-1)], -1)

    def _step(self, x: Tensor, starts: Tensor, core: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        going = ~starts.view(1, -1, 1)
        out, core = self.lstm(x.unsqueeze(0), tuple(state * going for state in core))  # type: ignore[misc]
        return out.squeeze(0), core
