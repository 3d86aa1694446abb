"""Random network distillation and its two streams against the paper's formulas, one step at a time."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from hsw.agent import OnPolicyAgent
from hsw.algorithm import RND, TwoStreamPPO
from hsw.algorithm.intrinsic import IntrinsicReward, Transitions
from hsw.network import TwoValueActorCritic
from hsw.returns import continuing_gae
from hsw.seeding import seed_everything
from hsw.spaces import SpaceSpec, mask_space, read_space
from hsw.storage import TwoStreamRolloutStorage
from tests.algorithm.naive import ACTION, OBS, Descent, N, T, entropy, mean, normalized, squared_error, surrogate
from tests.env.helpers import make
from tests.runs import differences

STEPS, ENVS = 7, 3


def transitions(seed: int = 0, continued: bool = True) -> Transitions:
    torch.manual_seed(seed)
    rows = STEPS * ENVS
    obs, zeros = 3 * torch.randn(rows, 4) + 1, torch.zeros(rows)
    return Transitions(obs, zeros, zeros, obs + 1, zeros.bool(), torch.rand(rows) > 0.2, ENVS, continued)


def make_rnd(space: Any = OBS, **kwargs: Any) -> RND:
    torch.manual_seed(3)
    return RND(space, **{"hidden_sizes": (8,), "num_features": 5, **kwargs})


def naive_errors(rnd: RND, obs: torch.Tensor, seen: torch.Tensor) -> list[float]:
    """Of each observation, with the moments of all that was seen."""
    average = sum(seen) / len(seen)
    variance = sum((row - average) ** 2 for row in seen) / len(seen)
    errors = []
    for row in obs:
        x = ((row - average) / (variance + 1e-8).sqrt()).clip(-5, 5)[None].float()
        errors.append(float(((rnd.predictor(x) - rnd.target(x)) ** 2).sum() / 5))
    return errors


def test_rewards_are_errors_over_the_deviation_of_their_sum_that_no_episode_ends() -> None:
    rnd, rows = make_rnd(coef=2.0, discount=0.9), [transitions(0), transitions(1)]
    sums, told, seen = [0.0] * ENVS, [], torch.zeros(0, 4)
    for part in rows:
        rnd.observe(part)
        seen = torch.cat([seen, part.next_obs[part.valid]]).double()
        errors = naive_errors(rnd, part.next_obs, seen)
        for row in range(STEPS * ENVS):
            if part.valid[row]:
                sums[row % ENVS] = 0.9 * sums[row % ENVS] + errors[row]
                told.append(sums[row % ENVS])
    expected = [2.0 * error / float(np.std(told)) for error in errors]
    torch.testing.assert_close(rnd.rewards(rows[-1]), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_the_predictor_descends_the_mean_squared_error_and_the_target_stays() -> None:
    rnd, part = make_rnd(lr=0.01, num_epochs=2, num_mini_batch=1, update_proportion=1.0, eps=1e-5), transitions()
    rnd.observe(part)
    predictor, target = copy.deepcopy(rnd.predictor), copy.deepcopy(rnd.target)
    seen = part.next_obs[part.valid].double()
    x = ((seen - seen.mean(0)) / (seen.var(0, unbiased=False) + 1e-8).sqrt()).clip(-5, 5).float()
    descent = Descent(list(predictor.parameters()), 0.01, float("inf"), 1e-5)
    losses = []
    for _ in range(2):
        losses.append(sum((predictor(row[None]) - target(row[None])).pow(2).sum() / 5 for row in x) / len(x))
        descent.step(losses[-1])
    info = rnd.update(part)
    assert info["rnd_loss"] == pytest.approx(float(mean(losses).detach()), rel=1e-4)
    torch.testing.assert_close(list(rnd.predictor.parameters()), list(predictor.parameters()), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(list(rnd.target.parameters()), list(target.parameters()), rtol=0, atol=0)


def test_what_was_learnt_is_worth_less_and_the_schedule_is_followed() -> None:
    rnd, part = make_rnd(lr=0.01, coef_schedule="linear"), transitions()
    rnd.observe(part)
    before, news = rnd.errors(part.next_obs), part.next_obs + 20
    for _ in range(60):
        rnd.update(part)
    assert rnd.errors(part.next_obs).mean() < 0.3 * before.mean()
    assert rnd.errors(news).mean() > rnd.errors(part.next_obs).mean()
    full = rnd.rewards(part)
    rnd.progress = 0.75
    torch.testing.assert_close(rnd.rewards(part), full / 4)


def test_a_saved_state_continues_bit_for_bit() -> None:
    ends = []
    for resumed in (False, True):
        rnd = make_rnd()
        rnd.observe(transitions(0))
        rnd.update(transitions(0))
        if resumed:
            saved, rnd = copy.deepcopy(rnd.state_dict()), make_rnd(seed=9)
            rnd.load_state_dict(saved)
        rnd.observe(transitions(1))
        rnd.update(transitions(1))
        ends.append(rnd.state_dict())
    assert differences(*ends) == []


@pytest.mark.parametrize(
    ("space", "of"),
    [
        (Box(0, 255, (3, 12, 12), np.uint8), lambda x: (x[:, :1] * 9).byte().view(-1, 1, 1, 1).expand(-1, 3, 12, 12)),
        (Dict(a=OBS, b=Discrete(3)), lambda x: {"a": x, "b": (x[:, 0] > 1).long()}),
        (mask_space(read_space(OBS), 2), lambda x: {"observation": x, "action_mask": (x[:, :2] > 0).char()}),
    ],
    ids=["image", "dict", "masked"],
)
def test_images_parts_and_choices_are_seen_and_masks_are_not(space: Any, of: Any) -> None:
    rnd, part = make_rnd(space), transitions()
    part = Transitions(None, part.actions, part.rewards, of(part.next_obs.abs()), part.terminateds, part.valid, ENVS)
    rnd.observe(part)
    first = rnd.rewards(part)
    assert first.std() > 0
    if isinstance(space, SpaceSpec):
        part.next_obs["action_mask"] = 1 - part.next_obs["action_mask"]
        assert torch.equal(rnd.rewards(part), first)
    assert rnd.update(part)["rnd_loss"] > 0


def test_a_stream_that_no_end_concerns_is_one_without_the_resets() -> None:
    torch.manual_seed(0)
    rewards, values, valid = torch.randn(T + 4, N), torch.randn(T + 5, N), torch.rand(T + 4, N) > 0.3
    found = continuing_gae(rewards, values, 0.9, 0.8, valid)
    for n in range(N):
        rows = [t for t in range(T + 4) if valid[t, n]]
        stream = [*(float(values[t, n]) for t in rows), float(values[-1, n])]
        advantage = 0.0
        for k in reversed(range(len(rows))):
            delta = float(rewards[rows[k], n]) + 0.9 * stream[k + 1] - stream[k]
            advantage = delta + 0.9 * 0.8 * advantage
            assert float(found[rows[k], n]) == pytest.approx(advantage, abs=1e-5)
    assert (found[~valid] == 0).all()


@pytest.mark.parametrize("clip", [None, 0.1])
def test_updates_have_a_value_loss_for_each_stream(clip: float | None) -> None:
    torch.manual_seed(0)
    policy = TwoValueActorCritic(OBS, ACTION, hidden_sizes=(8,))
    torch.nn.init.normal_(policy.policy_head.weight)
    storage = TwoStreamRolloutStorage(OBS, ACTION, "cpu", T, N, reward_coef=2.0, intrinsic_coef=0.5)
    obs, flags = torch.randn(T + 1, N, 4), torch.rand(3, T, N) < 0.2
    with torch.no_grad():
        for t in range(T):
            actions, extras = policy.act(obs[t])
            row = obs[t], actions, torch.randn(N) * 3, flags[0, t], flags[1, t], obs[t + 1]
            storage.add(*row, valid=~flags[2, t], **extras)
        storage.intrinsic_rewards.copy_(torch.rand(T, N) * storage.valid)
        storage.before_gradients(policy, None)
        own = storage.returns - storage.values[:-1]
        intrinsic = storage.intrinsic_returns - storage.intrinsic_values[:-1]
        torch.testing.assert_close(storage.advantages, 2.0 * own + 0.5 * intrinsic)
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    options: dict[str, Any] = {"lr": 0.01, "num_mini_batch": 1, "num_epochs": 1, "max_grad_norm": 0.3}
    algorithm = TwoStreamPPO(copy.deepcopy(policy), value_clip_range=clip, **options)
    (batch,) = copy.deepcopy(storage).generate_batches(1)
    logits = policy.policy_head(policy.encoder(batch.obs))
    values = policy.value_head(policy.value_encoder(batch.obs))
    log_probs = [row.log_softmax(0)[int(a)] for row, a in zip(logits, batch.actions, strict=True)]
    loss = (
        surrogate(log_probs, batch.log_probs, normalized(batch.advantages)[0], 0.2)
        + 0.5 * squared_error(values[:, 0], batch.values, batch.returns, clip)
        + 0.5 * squared_error(values[:, 1], batch.intrinsic_values, batch.intrinsic_returns, clip)
        - 0.01 * entropy(logits)
    )
    norm = Descent(list(policy.parameters()), 0.01, 0.3).step(loss)
    info = algorithm.update(storage)
    assert info["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert info["grad_norm"] == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(list(algorithm.policy.parameters()), list(policy.parameters()), rtol=1e-3, atol=1e-5)


class Always(IntrinsicReward):
    """1 for each step."""

    def rewards(self, transitions: Transitions) -> torch.Tensor:
        return torch.ones_like(transitions.rewards)


@pytest.mark.parametrize("truncate", [True, False])
def test_rewards_of_ones_own_are_worth_all_that_follow_whatever_ends_the_environments_do(truncate: bool) -> None:
    seed_everything(1)
    env = make("Counter", 2, kwargs={"length": 4, "truncate": truncate})
    spaces = env.observation_space, env.action_space
    policy = TwoValueActorCritic(*spaces, hidden_sizes=(16,))
    storage = TwoStreamRolloutStorage(*spaces, num_steps=40, num_envs=2, discount=0.8, intrinsic_discount=0.75)
    options: dict[str, Any] = {"value_coef": 1.0, "entropy_coef": 0.0, "max_grad_norm": 100.0, "num_epochs": 8}
    algorithm = TwoStreamPPO(policy, lr=0.02, num_mini_batch=1, **options)
    trained = OnPolicyAgent(env, policy=policy, algorithm=algorithm, storage=storage, intrinsic_reward=Always())
    trained.train(2000)
    seen = torch.arange(4.0)[:, None]  # where actions are taken
    own, intrinsic = policy.value(seen).detach().unbind(-1)
    torch.testing.assert_close(intrinsic, torch.full((4,), 4.0), atol=0.3, rtol=0)
    if truncate:
        torch.testing.assert_close(own, torch.full((4,), 5.0), atol=1.2, rtol=0)
    else:
        left = [sum(0.8**k for k in range(4 - t)) for t in range(4)]
        torch.testing.assert_close(own, torch.tensor(left), atol=0.3, rtol=0)
