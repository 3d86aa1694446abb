"""IMPALA's update against the paper's loss, one environment and one step at a time."""

from __future__ import annotations

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.algorithm import IMPALA
from hsw.errors import NonFiniteError
from hsw.network import RecurrentActorCritic
from hsw.storage.distributed import DistributedBatch

T, B = 5, 3
OBS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
SPACES = {"discrete": gym.spaces.Discrete(4), "box": gym.spaces.Box(-1, 1, (2,), np.float32)}


def make(kind="discrete", lstm_size=0, **kwargs):
    torch.manual_seed(0)
    return IMPALA(RecurrentActorCritic(OBS, SPACES[kind], hidden_sizes=(8,), lstm_size=lstm_size), **kwargs)


def batch_of(kind="discrete", lstm_size=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    terminateds = torch.zeros(T + 1, B, dtype=torch.bool)
    truncateds, valid = terminateds.clone(), ~terminateds
    terminateds[1, 0], valid[2, 0] = True, False
    truncateds[2, 1], valid[3, 1] = True, False
    starts = torch.zeros(T + 1, B, dtype=torch.bool)
    starts[1:] = ~valid[:-1]
    starts[0, 2] = True
    actions = torch.randint(4, (T + 1, B), generator=generator) if kind == "discrete" else normal(T + 1, B, 2)
    last = torch.roll(actions, 1, 0)
    return DistributedBatch(
        obs=normal(T + 1, B, 3),
        actions=actions,
        last_actions=last,
        last_rewards=normal(T + 1, B) * ~starts,
        starts=starts,
        rewards=3 * normal(T + 1, B) * valid,
        log_probs=-1.5 + 0.3 * normal(T + 1, B),
        terminateds=terminateds,
        truncateds=truncateds,
        valid=valid,
        init_actor_states=(normal(1, B, lstm_size), normal(1, B, lstm_size)) if lstm_size else (),
    )


class One:
    def __init__(self, batch):
        self.batch = batch

    def generate_batches(self, *args):
        yield self.batch


def outputs(policy, batch, kind):
    """The heads' outputs row by row, with the LSTM's state zeroed where an episode starts: [T + 1][B]."""
    rows = []
    core = [part.double() for part in batch.init_actor_states]
    for t in range(T + 1):
        columns, following = [], []
        for b in range(B):
            x = policy.encoder(batch.obs[t, b][None].double())
            fresh = bool(batch.starts[t, b])
            last = policy.distribution.features(batch.last_actions[t, b][None]).double() * (not fresh)
            x = torch.cat([x, last, batch.last_rewards[t, b].double().clamp(-1, 1).view(1, 1)], -1)
            if core:
                state = tuple(part[:, b : b + 1] * (not fresh) for part in core)
                x, state = policy.lstm(x[None], state)
                x = x[0]
                following.append(state)
            columns.append((policy.policy_head(x)[0], policy.value_head(x)[0, 0]))
        core = [torch.cat(parts, 1) for parts in zip(*following, strict=True)]
        rows.append(columns)
    return rows


def naive_loss(algorithm, batch, kind, clip=1.0):
    """Sum over valid steps of -log pi A + .5 * .5 (vs - V)^2 - .01 H (section 4.2), vs and A as plain recursions."""
    policy = copy.deepcopy(algorithm.policy).double()
    rows, discount = outputs(policy, batch, kind), algorithm.discount
    total = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        values = [float(rows[t][b][1].detach()) for t in range(T + 1)]
        targets = [0.0] * T + [values[T]]
        log_probs, entropies, rhos, rewards = [], [], [], []
        for t in range(T):
            params, action = rows[t][b][0][None], batch.actions[t, b][None]
            log_prob, entropy = policy.distribution.log_prob_and_entropy(params, action)
            log_probs.append(log_prob[0])
            entropies.append(entropy[0])
            rhos.append(math.exp(float(log_prob[0].detach()) - float(batch.log_probs[t, b])))
            rewards.append(max(-clip, min(clip, float(batch.rewards[t, b]))))
        for t in reversed(range(T)):
            if not batch.valid[t, b]:
                continue
            end = bool(batch.terminateds[t, b])
            cut = end or bool(batch.truncateds[t, b])
            delta = min(1, rhos[t]) * (rewards[t] + (0 if end else discount * values[t + 1]) - values[t])
            trace = 0 if cut else discount * min(1, rhos[t]) * (targets[t + 1] - values[t + 1])
            targets[t] = values[t] + delta + trace
        for t in range(T):
            if not batch.valid[t, b]:
                continue
            following = values[t + 1] if batch.truncateds[t, b] else targets[t + 1]
            bootstrap = 0 if batch.terminateds[t, b] else discount * following
            advantage = min(1, rhos[t]) * (rewards[t] + bootstrap - values[t])
            total = total - log_probs[t] * advantage
            total = total + algorithm.value_coef * 0.5 * (targets[t] - rows[t][b][1]) ** 2
            total = total - algorithm.entropy_coef * entropies[t]
    return policy, total


@pytest.mark.parametrize("lstm_size", [0, 6])
@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradient_is_that_of_the_papers_loss(kind, lstm_size, reduction):
    algorithm = make(kind, lstm_size, lr=0.0, max_grad_norm=1e9, reduction=reduction)
    batch = batch_of(kind, lstm_size)
    policy, loss = naive_loss(algorithm, batch, kind)
    if reduction == "mean":
        loss = loss / batch.valid[:-1].sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))])
    algorithm.update(One(batch))
    found = algorithm.make_optimizer().param_groups[0]["params"][0].grad.double()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5)


def test_rows_that_are_not_valid_change_nothing():
    found = []
    for fill in (0.0, 7.0):
        algorithm, batch = make(lr=0.0), batch_of()
        batch["rewards"][2, 0] = batch["log_probs"][3, 1] = fill
        batch["rewards"][T] = batch["log_probs"][T] = fill  # the last row has an observation and no step
        algorithm.update(One(batch))
        found.append(algorithm.make_optimizer().param_groups[0]["params"][0].grad)
    assert torch.equal(*found)


def test_learning_rate_goes_to_zero_with_the_steps():
    algorithm = make(lr=0.5)
    for progress, lr in ((0.0, 0.5), (0.5, 0.25), (1.0, 0.0)):
        algorithm.progress = progress
        assert algorithm.update(One(batch_of()))["lr"] == lr


def test_acting_row_by_row_is_unrolling_the_window():
    policy = make(lstm_size=6).policy
    memory = policy.initial_memory(B)
    obs, valid = torch.randn(T, B, 3), torch.rand(T, B) > 0.3
    rows = []
    for t in range(T):
        rows.append((memory.last_actions.clone(), memory.last_rewards.clone(), memory.starts.clone()))
        with torch.no_grad():
            actions, extras = policy.act(obs[t], False, memory)
        rows[-1] = (*rows[-1], actions, extras["log_probs"])
        memory.remember(actions, torch.randn(B), valid[t])
    last_actions, last_rewards, starts, actions, log_probs = (torch.stack(parts) for parts in zip(*rows, strict=True))
    params, _ = policy.unroll(obs, last_actions, last_rewards, starts, policy.initial_memory(B).core)
    again = policy.distribution.log_prob(params.flatten(0, 1), actions.flatten()).view(T, B)
    torch.testing.assert_close(again, log_probs)
    assert starts[0].all()
    assert torch.equal(starts[1:], ~valid[:-1])


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_saved_state_continues_bit_for_bit(optimizer):
    one, other = make(optimizer=optimizer), make(optimizer=optimizer)
    for seed in range(3):
        one.update(One(batch_of(seed=seed)))
    other.policy.load_state_dict(copy.deepcopy(one.policy.state_dict()))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for algorithm in (one, other):
        algorithm.update(One(batch_of(seed=9)))
    ends = [torch.cat([value.flatten() for value in a.policy.state_dict().values()]) for a in (one, other)]
    assert torch.equal(*ends)


def test_nan_is_named_and_changes_nothing():
    algorithm, batch = make(), batch_of()
    before = copy.deepcopy(algorithm.policy.state_dict())
    batch["rewards"][0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="IMPALA"):
        algorithm.update(One(batch))
    assert all(torch.equal(before[key], value) for key, value in algorithm.policy.state_dict().items())


@pytest.mark.parametrize("kind", SPACES)
def test_an_update_tells_of_its_valid_rows(kind):
    algorithm, batch = make(kind, entropy_coef=0.1), batch_of(kind)
    with torch.no_grad():
        inputs = batch.obs, batch.last_actions, batch.last_rewards, batch.starts
        values = algorithm.policy.unroll(*inputs, batch.init_actor_states)[1]
    rows = [float(values[t, b]) for t in range(T) for b in range(B) if batch.valid[t, b]]
    info = algorithm.update(One(batch))
    assert info["value"] == pytest.approx(sum(rows) / len(rows), rel=1e-4)
    assert info["loss"] == pytest.approx(info["policy_loss"] + 0.5 * info["value_loss"] - 0.1 * info["entropy"])
    # Half the squared error of targets around values is what is left unexplained, but for a constant.
    assert info["explained_variance"] <= 1
    assert ("std" in info) == (kind == "box")


def test_values_that_are_their_targets_explain_them():
    algorithm, batch = make(discount=0.0, rho_bar=1e6), batch_of()
    batch["log_probs"] = torch.full_like(batch.log_probs, -50.0)  # every ratio counts, so the target is the reward
    batch["rewards"] = batch.rewards.clamp(-1, 1)
    with torch.no_grad():
        algorithm.policy.encoder = Rewards(batch)
        algorithm.policy.value_head.weight.zero_()[0, 0] = 1.0
        algorithm.policy.value_head.bias.zero_()
    assert algorithm.update(One(batch))["explained_variance"] == pytest.approx(1.0, abs=1e-4)


class Rewards(torch.nn.Module):
    """An encoder that knows what a batch's steps will bring."""

    def __init__(self, batch):
        super().__init__()
        self.rows = torch.nn.functional.pad(batch.rewards.flatten().unsqueeze(1), (0, 7))

    def forward(self, obs):
        return self.rows
