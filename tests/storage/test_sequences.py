"""Sequences of rows: which rows they hold, where they are cut, and what they begin with."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from hsw.agent import OnPolicyAgent
from hsw.errors import ConfigError
from hsw.storage import SequenceRolloutStorage

SPACES = Box(-1, 1, (1,), np.float32), Discrete(2)
ACTOR = SimpleNamespace(value=lambda obs, core: core.sum(-1), advance=lambda obs, core: core + obs)


def filled(valid: Any, length: int | None = None) -> SequenceRolloutStorage:
    """Rows whose observation and core name their step and environment."""
    steps, envs = np.shape(valid)
    storage = SequenceRolloutStorage(*SPACES, "cpu", steps, envs, 0.9, 0.8, length)
    names = torch.arange((steps + 1) * envs).view(-1, envs, 1).float()
    for t in range(steps):
        core = torch.cat([names[t], -names[t]], -1)
        zeros = torch.zeros(envs)
        storage.add(
            names[t], zeros, zeros, False, False, names[t + 1], zeros, zeros, core, valid=torch.tensor(valid[t])
        )
    storage.before_gradients(ACTOR, None)
    return storage


def naive(valid: Any, length: int | None) -> list[list[int]]:
    """The sequences of each environment, as rows' names."""
    steps, envs = np.shape(valid)
    found: list[list[int]] = []
    for n in range(envs):
        run: list[int] = []
        for t in range(steps):
            if not valid[t][n] or len(run) == length:
                found, run = found + [run] * bool(run), []
            if valid[t][n]:
                run.append(t * envs + n)
        found += [run] * bool(run)
    return found


@pytest.mark.parametrize("length", [None, 1, 3, 7])
def test_sequences_end_at_resets_and_hold_every_row_once_with_the_core_of_their_first(length: int | None) -> None:
    valid = np.random.default_rng(0).random((9, 4)) > 0.25
    storage, expected = filled(valid, length), naive(valid, length)
    for shuffle in (False, True):
        found = []
        for batch in storage.generate_batches(3, shuffle=shuffle):
            assert len(batch.obs) == int(batch.lengths.sum()) == len(batch.advantages)
            for core, rows in zip(batch.core, batch.obs.flatten().split(batch.lengths.tolist()), strict=True):
                found.append(rows.int().tolist())
                assert core.tolist() == [rows[0], -rows[0]]
        assert sorted(found) == sorted(expected)
        assert (found == expected) is not shuffle


@pytest.mark.parametrize("length", [None, 1, 2, 3])
def test_what_the_loop_promises_of_the_number_of_sequences_holds_for_all_episodes(length: int | None) -> None:
    steps = 7
    columns = [
        c
        for c in itertools.product((True, False), repeat=steps)
        if not any(not a and not b for a, b in itertools.pairwise(c))
    ]  # a reset row follows a step
    fewest = min(len(naive(np.array(c)[:, None], length)) for c in columns)
    config = {"storage": {"num_steps": steps, "num_envs": 1, "sequence_length": length}, "algorithm": {}}
    for parts in range(1, 8):
        config["algorithm"]["num_mini_batch"] = parts
        if parts <= min(fewest, steps // 2):
            OnPolicyAgent.check(config)
        else:
            with pytest.raises(ConfigError, match=f"cannot make {parts} minibatches; lower algorithm.num_mini_batch"):
                OnPolicyAgent.check(config)


@pytest.mark.parametrize("ended", [False, True])
def test_the_last_observation_is_valued_with_what_is_remembered_there_or_nothing(ended: bool) -> None:
    valid = [[True], [True], [not ended]]
    storage = filled(valid)
    core = [2.0 + 2.0, -2.0 + 2.0]  # the last row's, taken past its observation
    assert storage.values[-1].tolist() == [0.0 if ended else sum(core)]


def test_a_state_of_another_width_is_not_taken_up() -> None:
    storage = filled([[True]] * 3)
    other = SequenceRolloutStorage(*SPACES, "cpu", 3, 1)
    other.bind(SimpleNamespace(core_dim=3), None)
    assert other.state_template()["data"].inner["core"].shape[-1] == 3
    other.load_state_dict(storage.state_dict())
    assert torch.equal(other.core, storage.core)
