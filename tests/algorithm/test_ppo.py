import pytest
import torch

from hsw.algorithm import PPO
from tests.algorithm.naive import Descent, collected, entropy, mean, normalized, same_batches, squared_error, surrogate
from tests.algorithm.naive import weights as copies


def naive_update(policy, storage, *, lr, clip, value_clip, value_coef, entropy_coef, max_grad_norm, normalize):
    descent = Descent(list(policy.parameters()), lr, max_grad_norm)
    norms, losses = [], []
    for batch in storage.generate_batches(2, None, 2):
        logits, values = policy.policy_head(policy.encoder(batch.obs)), policy.value(batch.obs)
        log_probs = [row.log_softmax(0)[int(action)] for row, action in zip(logits, batch.actions, strict=True)]
        advantages = normalized(batch.advantages)[0] if normalize else batch.advantages.tolist()
        policy_loss = surrogate(log_probs, batch.log_probs, advantages, clip)
        critic_loss = squared_error(values, batch.values, batch.returns, value_clip)
        spread = entropy(logits)
        losses.append([term.item() for term in (policy_loss, critic_loss, spread)])
        norms.append(descent.step(policy_loss + value_coef * critic_loss - entropy_coef * spread))
    return [mean(list(column)) for column in zip(*losses, strict=True)], mean(norms)


@pytest.mark.parametrize("value_clip", [None, 0.2])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("max_grad_norm", [0.05, 100.0])
def test_an_update_is_the_naive_update(value_clip, normalize, max_grad_norm):
    ppo, storage = collected(
        PPO,
        lr=0.01,
        num_epochs=2,
        num_mini_batch=2,
        clip_range=0.3,
        value_clip_range=value_clip,
        value_coef=0.7,
        entropy_coef=0.1,
        max_grad_norm=max_grad_norm,
        normalize_advantages=normalize,
    )
    other, _ = collected(PPO)
    other.policy.load_state_dict(ppo.policy.state_dict())
    losses, norm = naive_update(
        other.policy,
        same_batches(storage),
        lr=0.01,
        clip=0.3,
        value_clip=value_clip,
        value_coef=0.7,
        entropy_coef=0.1,
        max_grad_norm=max_grad_norm,
        normalize=normalize,
    )
    info = ppo.update(storage)
    for got, expected in zip(ppo.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=2e-5)
    assert [info[name] for name in ("policy_loss", "value_loss", "entropy")] == pytest.approx(
        losses, rel=1e-3, abs=1e-4
    )
    assert info["grad_norm"] == pytest.approx(norm, rel=1e-3)
    assert info["gradient_steps"] == 4


def test_every_parameter_learns():
    ppo, storage = collected(PPO)
    before = copies(ppo.policy.parameters())
    ppo.update(storage)
    assert all((old != new).any() for old, new in zip(before, ppo.policy.parameters(), strict=True))


@pytest.mark.parametrize(("target_kl", "stops"), [(1e-9, True), (1e9, False), (None, False)])
def test_an_update_ends_where_the_policy_has_moved_too_far(target_kl, stops):
    ppo, storage = collected(PPO, num_epochs=3, num_mini_batch=2, target_kl=target_kl)
    before = copies(ppo.policy.parameters())
    info = ppo.update(storage)
    assert info["gradient_steps"] == (0 if stops else 6)
    assert all(map(torch.equal, before, ppo.policy.parameters())) == stops


@pytest.mark.parametrize(("schedule", "expected"), [("constant", 0.2), ("linear", 0.05)])
def test_the_clip_range_follows_its_schedule(schedule, expected):
    ppo, storage = collected(PPO, clip_range=0.2, clip_schedule=schedule)
    ppo.progress = 0.75
    assert ppo.update(storage)["clip_range"] == pytest.approx(expected)
