"""A policy that remembers: whole sequences at once are what it did row by row, and by the cells' formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from hsw.network import MemoryActorCritic

OBS, ACTIONS = Box(-1, 1, (3,), np.float32), Discrete(4)
cells = pytest.mark.parametrize("cell", ["lstm", "gru"])


def make(cell: str = "lstm", shared: bool | None = None) -> MemoryActorCritic:
    torch.manual_seed(0)
    policy = MemoryActorCritic(OBS, ACTIONS, hidden_sizes=(5,), cell=cell, cell_size=6, shared=shared)
    torch.nn.init.normal_(policy.policy_head.weight)
    return policy


def naive_step(tower: Any, obs: torch.Tensor, core: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One observation through an encoder and a cell: Hochreiter & Schmidhuber's with forget gates, or Cho et al.'s."""
    x, cell, size = tower.encoder(obs), tower.cell, tower.size
    h = core[:, :size]
    into = (x @ cell.weight_ih_l0.T + cell.bias_ih_l0).chunk(4 if tower.is_lstm else 3, -1)
    again = (h @ cell.weight_hh_l0.T + cell.bias_hh_l0).chunk(4 if tower.is_lstm else 3, -1)
    if tower.is_lstm:
        i, f, g, o = (a + b for a, b in zip(into, again, strict=True))
        c = f.sigmoid() * core[:, size:] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, torch.cat([h, c], -1)
    reset, update = (into[0] + again[0]).sigmoid(), (into[1] + again[1]).sigmoid()
    new = (into[2] + reset * again[2]).tanh()
    h = (1 - update) * new + update * h
    return h, h


@cells
@pytest.mark.parametrize("shared", [True, None])
def test_sequences_at_once_are_what_acting_did_row_by_row(cell: str, shared: bool | None) -> None:
    policy, memory = make(cell, shared), make(cell, shared).initial_memory(3)
    obs = torch.randn(7, 3, 3)
    valid = torch.ones(7, 3, dtype=torch.bool)
    valid[3, 1] = False  # environment 1 is reset there
    rows = []
    for t in range(7):
        actions, extras = policy.act(obs[t], memory=memory)
        memory.remember(actions, torch.zeros(3), valid[t])
        rows.append((actions, extras))
    core = torch.stack([extras["core"] for _, extras in rows])
    assert core[4, 1].abs().sum() == 0
    assert core[4, 0].abs().sum() > 0
    parts = [(0, 0, 3), (1, 4, 7), (2, 2, 7), (0, 3, 7), (1, 0, 3)]  # environment, first and last step
    pick = lambda name: torch.cat([torch.stack([rows[t][1][name][n] for t in range(a, b)]) for n, a, b in parts])
    actions = torch.cat([torch.stack([rows[t][0][n] for t in range(a, b)]) for n, a, b in parts])
    flat = torch.cat([obs[a:b, n] for n, a, b in parts])
    first = torch.stack([core[a, n] for n, a, b in parts])
    lengths = torch.tensor([b - a for _, a, b in parts])
    log_probs, entropies, values = policy.evaluate(flat, actions, first, lengths)
    torch.testing.assert_close(log_probs, pick("log_probs"))
    torch.testing.assert_close(values, pick("values"))
    assert len(entropies) == len(flat)


@cells
@pytest.mark.parametrize("shared", [True, False])
def test_a_step_is_that_of_the_cells_formula(cell: str, shared: bool) -> None:
    policy = make(cell, shared)
    obs, core = torch.randn(4, 3), torch.randn(4, policy.core_dim)
    told, after = [], []
    for tower, part in zip(policy.towers, core.chunk(len(policy.towers), -1), strict=True):
        features, then = naive_step(tower, obs, part)
        told.append(features)
        after.append(then)
    torch.testing.assert_close(policy.value(obs, core), policy.value_head(told[-1]).squeeze(-1))
    torch.testing.assert_close(policy.advance(obs, core), torch.cat(after, -1))
    logits = policy.policy_head(told[0])
    chosen = policy.evaluate(obs, logits.argmax(-1), core, torch.ones(4, dtype=torch.int64))[0]
    torch.testing.assert_close(chosen, logits.log_softmax(-1).max(-1).values)
