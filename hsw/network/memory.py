"""Recurrent PPO's networks: policy and value heads that remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from hsw.bounds import Range
from hsw.network.actor_critic import Memory, Policy, seen_space
from hsw.network.distribution import DistributionChoice, make_distribution
from hsw.network.encoder import Encoder, describe_encoder, make_encoder, sees_image
from hsw.network.layers import orthogonal
from hsw.spaces import SpaceLike, SpaceSpec, leaves, read_space, split_mask

CELLS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}


class CoreMemory(Memory):
    """What N environments carry from row to row.

    Attributes:
        core: The recurrent state before the present observations, [N, D]; zeros where an episode begins.
    """

    def __init__(self, core: Tensor) -> None:
        self.core = core

    def remember(self, actions: Tensor, rewards: Tensor, valid: Tensor) -> None:
        self.core = self.core * valid.unsqueeze(-1)  # after a reset row an episode begins

    def state_dict(self) -> dict[str, Any]:
        return {"core": self.core}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.core = state["core"].to(self.core.device)


class MemoryActorCritic(Policy):
    """Policy and value head, each on an encoder and an LSTM or GRU (Hochreiter & Schmidhuber 1997; Cho et al. 2014).

    Args:
        observation_space, action_space: In any form that read_space takes.
        encoder: A name in EncoderName, or a callable that takes the SpaceSpec and returns a module with out_dim.
        hidden_sizes, activation: Of an MLP encoder.
        cell: "lstm" or "gru".
        cell_size: Its width.
        shared: One encoder and cell for both heads; None shares them for images and for nothing else.
        distribution: As in ActorCritic.
    """

    extras = ("log_probs", "values", "core")

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (64,),
        activation: Literal["tanh", "relu", "elu"] = "tanh",
        cell: Literal["lstm", "gru"] = "lstm",
        cell_size: Annotated[int, Range(1)] = 64,
        shared: bool | None = None,
        distribution: DistributionChoice = "auto",
    ) -> None:
        super().__init__()
        space, self.masks_actions = seen_space(observation_space)
        self.observation_space = space
        if shared is None:
            shared = sees_image(space, encoder)
        self.distribution = make_distribution(read_space(action_space), distribution)
        towers = [_Tower(space, encoder, hidden_sizes, activation, cell, cell_size) for _ in range(1 if shared else 2)]
        self.towers = nn.ModuleList(towers)
        self.core_dim = sum(tower.core_dim for tower in towers)
        self.policy_head = orthogonal(nn.Linear(cell_size, self.distribution.params_dim), 0.01)
        self.value_head = orthogonal(nn.Linear(cell_size, 1), 1.0)

    def encoder_names(self) -> dict[str, str]:
        return describe_encoder(self.towers[0].encoder, self.observation_space)

    def initial_memory(self, num_envs: int) -> CoreMemory:
        return CoreMemory(torch.zeros(num_envs, self.core_dim, device=self.value_head.weight.device))

    def act(
        self, obs: Any, deterministic: bool = False, memory: CoreMemory | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Choose actions; the memory is taken one observation further.

        Args:
            obs: [B, *shape], or a dict of them.
            deterministic: Take the mode of the distribution instead of a sample.
            memory: Of these environments; None acts as at an episode's start.

        Returns:
            Actions, [B, *action_shape], and log_probs and values, [B], and the core before these observations, [B, D].
        """
        own = memory or self.initial_memory(len(next(leaves(obs))))
        before = own.core
        params, values, own.core = self._run(obs, before)
        actions, log_probs = self.distribution.choose(params, deterministic)
        return actions, {"log_probs": log_probs, "values": values, "core": before}

    def value(self, obs: Any, core: Tensor | None = None) -> Tensor:
        """V(obs) with what was remembered before it, [B, D], or at an episode's start: [B]."""
        return self._run(obs, self.initial_memory(len(next(leaves(obs)))).core if core is None else core)[1]

    def advance(self, obs: Any, core: Tensor) -> Tensor:
        """The core after observations, [B, D]."""
        return self._run(obs, core)[2]

    def evaluate(self, obs: Any, actions: Tensor, core: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of actions, entropies and values under the current weights, [R] each.

        Args:
            obs: The rows of S sequences, one sequence after the other, [R, *shape] or a dict of them.
            actions: [R, *action_shape].
            core: Before each sequence's first row, [S, D].
            lengths: Of the sequences, [S]; their sum is R.
        """
        params, values, _ = self._run(obs, core, _Places(lengths))
        return *self.distribution.log_prob_and_entropy(params, actions), values

    def _run(self, obs: Any, core: Tensor, places: _Places | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The distribution's parameters, [R, P], the values, [R], and the core afterwards, [S, D]."""
        obs, mask = split_mask(obs) if self.masks_actions else (obs, None)
        parts = core.chunk(len(self.towers), -1)
        told = [tower(obs, part, places) for tower, part in zip(self.towers, parts, strict=True)]
        values: Tensor = self.value_head(told[-1][0])
        params: Tensor = self.policy_head(told[0][0])
        params = params if mask is None else self.distribution.masked(params, mask)
        return params, values.squeeze(-1), torch.cat([after for _, after in told], -1)


class _Places:
    """Where the rows of sequences that lie one after the other stand in a padded block, [L, S]."""

    def __init__(self, lengths: Tensor) -> None:
        ends = lengths.cumsum(0)
        self.shape = int(lengths.max()), len(lengths)
        self.sequence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        self.step = torch.arange(int(ends[-1]), device=lengths.device) - (ends - lengths).repeat_interleave(lengths)


class _Tower(nn.Module):
    """An encoder and a cell on it."""

    def __init__(
        self,
        space: SpaceSpec,
        encoder: Encoder,
        hidden_sizes: Sequence[int],
        activation: str,
        cell: str,
        size: int,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, space, hidden_sizes, activation)
        self.cell = CELLS[cell](self.encoder.out_dim, size)
        for name, parameter in self.cell.named_parameters():
            nn.init.zeros_(parameter) if name.startswith("bias") else nn.init.orthogonal_(parameter)
        self.is_lstm, self.size = cell == "lstm", size
        self.core_dim = 2 * size if self.is_lstm else size

    def forward(self, obs: Any, core: Tensor, places: _Places | None) -> tuple[Tensor, Tensor]:
        """Features, [R, H], and the core afterwards, [S, core_dim]; without places each row is a sequence."""
        x: Tensor = self.encoder(obs).float()  # autocast leaves a GRU's weights as they are, and so its inputs must be
        block = x.unsqueeze(0)
        if places is not None:  # what fills a short sequence up comes after its rows, and reaches none of them
            block = x.new_zeros(*places.shape, x.shape[-1])
            block[places.step, places.sequence] = x
        parts = tuple(part.contiguous().unsqueeze(0) for part in torch.split(core, self.size, -1))
        out, after = self.cell(block, parts if self.is_lstm else parts[0])
        rows = out.squeeze(0) if places is None else out[places.step, places.sequence]
        return rows, torch.cat(after, -1).squeeze(0) if self.is_lstm else after.squeeze(0)
