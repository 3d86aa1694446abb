"""Recurrent PPO's update against the formulas, one sequence and one row at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from hsw.agent import OnPolicyAgent
from hsw.algorithm import RecurrentPPO
from hsw.network import MemoryActorCritic
from hsw.seeding import seed_everything
from hsw.storage import SequenceRolloutStorage
from tests.algorithm.naive import ACTION, OBS, Descent, N, T, entropy, mean, normalized, squared_error, surrogate
from tests.env.helpers import make
from tests.network.test_memory import naive_step


def collected(cell: str, **kwargs: Any) -> tuple[RecurrentPPO, SequenceRolloutStorage]:
    """A rollout with resets, of a policy that has moved a little since."""
    torch.manual_seed(0)
    policy = MemoryActorCritic(OBS, ACTION, hidden_sizes=(8,), cell=cell, cell_size=5)
    torch.nn.init.normal_(policy.policy_head.weight)
    storage, memory = SequenceRolloutStorage(OBS, ACTION, "cpu", T, N, sequence_length=4), policy.initial_memory(N)
    obs, flags = torch.randn(T + 1, N, 4), torch.rand(3, T, N) < 0.2
    with torch.no_grad():
        for t in range(T):
            actions, extras = policy.act(obs[t], memory=memory)
            rewards, valid = torch.randn(N) * 3, ~flags[2, t]
            storage.add(obs[t], actions, rewards, flags[0, t], flags[1, t], obs[t + 1], valid=valid, **extras)
            memory.remember(actions, rewards, valid)
        storage.before_gradients(policy, None)
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return RecurrentPPO(policy, **kwargs), storage


def through(policy: Any, batch: Any) -> tuple[Any, Any]:
    """Logits and values of each row, one row after the other."""
    logits, values, row = [], [], 0
    for core, length in zip(batch.core, batch.lengths.tolist(), strict=True):
        parts = list(core[None].chunk(2, -1))
        for _ in range(length):
            told = [naive_step(tower, batch.obs[row][None], parts[k]) for k, tower in enumerate(policy.towers)]
            parts = [after for _, after in told]
            logits.append(policy.policy_head(told[0][0])[0])
            values.append(policy.value_head(told[1][0])[0, 0])
            row += 1
    return logits, values


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_updates_are_those_of_the_papers_loss_row_by_row(cell: str, clip: float | None) -> None:
    options = {"num_epochs": 2, "num_mini_batch": 2, "value_clip_range": clip, "max_grad_norm": 0.3, "lr": 0.01}
    algorithm, storage = collected(cell, lr_schedule="constant", **options)
    policy = copy.deepcopy(algorithm.policy)
    descent = Descent(list(policy.parameters()), 0.01, 0.3)
    norms, losses = [], []
    for batch in copy.deepcopy(storage).generate_batches(2, None, 2):
        logits, values = through(policy, batch)
        log_probs = [row.log_softmax(0)[int(a)] for row, a in zip(logits, batch.actions, strict=True)]
        advantages, *_ = normalized(batch.advantages)
        losses.append(
            surrogate(log_probs, batch.log_probs, advantages, 0.2)
            + 0.5 * squared_error(values, batch.values, batch.returns, clip)
            - 0.01 * entropy(logits)
        )
        norms.append(descent.step(losses[-1]))
    info = algorithm.update(storage)
    assert info["loss"] == pytest.approx(float(mean(losses).detach()), rel=1e-4)
    assert info["grad_norm"] == pytest.approx(sum(norms) / 4, rel=1e-4)
    torch.testing.assert_close(list(algorithm.policy.parameters()), list(policy.parameters()), rtol=1e-3, atol=1e-5)


def learner(name: str, env: dict[str, Any], storage: dict[str, Any], **algorithm: Any) -> OnPolicyAgent:
    seed_everything(1)
    made = make(name, 2, **env)
    policy = MemoryActorCritic(made.observation_space, made.action_space, hidden_sizes=(8,), cell_size=8)
    spaces = made.observation_space, made.action_space
    parts = {"policy": policy, "storage": SequenceRolloutStorage(*spaces, num_envs=2, **storage)}
    return OnPolicyAgent(made, algorithm=RecurrentPPO(policy, **algorithm), **parts)


def test_weights_that_stay_repeat_what_acting_stored_from_rollout_to_rollout() -> None:
    """In the real loop, through resets: a row's log-probability and value, and the value behind the last row."""
    made = learner("Counter", {"kwargs": {"length": 7}}, {"num_steps": 12, "sequence_length": 5}, lr=0.0)
    torch.nn.init.normal_(made.policy.policy_head.weight)
    storage, update, behind = made.storage, made.algorithm.update, []

    def checked(rollout: Any) -> dict[str, float]:
        for batch in rollout.generate_batches(2):
            log_probs, _, values = made.algorithm.evaluate(batch)
            torch.testing.assert_close((log_probs, values), (batch.log_probs, batch.values))
        assert not rollout.core[1:][~rollout.valid[:-1]].any()  # an episode begins with nothing
        if behind:
            torch.testing.assert_close(rollout.values[0], behind[-1])
        behind.append(rollout.values[-1].clone())
        told: dict[str, float] = update(rollout)
        return told

    made.algorithm.update = checked  # type: ignore[method-assign]
    made.train(200)
    assert len(behind) > 5
    assert not storage.valid.all()


def test_a_task_that_only_truncates_is_worth_its_reward_over_one_minus_the_discount() -> None:
    trained = learner(
        "Counter",
        {"kwargs": {"length": 5, "truncate": True}},
        {"num_steps": 32, "discount": 0.8},
        lr=0.05,
        num_mini_batch=1,
        entropy_coef=0.0,
        value_coef=1.0,
        max_grad_norm=100.0,
    )
    trained.train(1000)
    values = trained.storage.values
    torch.testing.assert_close(values, torch.full_like(values, 5.0), atol=0.6, rtol=0)
