import copy

import pytest
import torch

from hsw.algorithm import DAAC
from tests.algorithm.naive import Descent, collected, entropy, mean, normalized, same_batches, squared_error, surrogate
from tests.algorithm.naive import weights as copies
from tests.helpers import equal

COMMON = {"lr": 0.01, "num_mini_batch": 2, "clip_range": 0.3, "max_grad_norm": 0.3}


def naive_update(policy, storage, epochs, value_epochs, adv_coef, entropy_coef):
    """Policy phase, then value phase, each network with an Adam of its own (arXiv:2102.10330)."""
    rows = storage.valid.nonzero().tolist()
    _, average, std = normalized([storage.advantages[t, n] for t, n in rows])
    descent = Descent(policy.policy_parameters(), 0.01, 0.3)
    for batch in storage.generate_batches(2, None, epochs):
        features = policy.encoder(batch.obs)
        logits = policy.policy_head(features)
        advantages = [(float(a) - average) / (std + 1e-8) for a in batch.advantages]
        log_probs = [row.log_softmax(0)[int(action)] for row, action in zip(logits, batch.actions, strict=True)]
        one_hot = torch.stack([torch.eye(3)[int(action)] for action in batch.actions])
        predicted = policy.advantage_head(torch.cat([features, one_hot], 1)).flatten()
        adv_loss = mean([(p - a) ** 2 for p, a in zip(predicted, advantages, strict=True)])
        policy_loss = surrogate(log_probs, batch.log_probs, advantages, 0.3)
        descent.step(policy_loss + adv_coef * adv_loss - entropy_coef * entropy(logits))
    descent = Descent(policy.value_parameters(), 0.01, 0.3)
    losses = []
    for batch in storage.generate_batches(2, None, value_epochs):
        loss = 0.5 * squared_error(policy.value(batch.obs), batch.values, batch.returns, 0.3)
        losses.append(loss.item())
        descent.step(loss)
    return mean(losses)


@pytest.mark.parametrize(("epochs", "value_epochs"), [(1, 3), (2, 1)])
def test_an_update_is_the_naive_update(epochs, value_epochs):
    daac, storage = collected(
        DAAC, num_epochs=epochs, value_epochs=value_epochs, adv_loss_coef=0.4, entropy_coef=0.1, **COMMON
    )
    policy = copy.deepcopy(daac.policy)
    loss = naive_update(policy, same_batches(storage), epochs, value_epochs, 0.4, 0.1)
    info = daac.update(storage)
    for got, expected in zip(daac.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=2e-5)
    assert info["value_loss"] == pytest.approx(loss, rel=1e-3)


def groups(daac):
    return copies(daac.policy.policy_parameters()), copies(daac.policy.value_parameters())


def changed(before, after):
    return [not equal(old, new) for old, new in zip(before, after, strict=True)]


# Ancestors' defects: the value net never learned. it read the actor's encoder.
@pytest.mark.parametrize("phase", ["policy", "value"])
def test_each_phase_changes_every_parameter_of_its_network_and_none_of_the_other(phase):
    daac, storage = collected(DAAC)
    before = groups(daac)
    daac._policy_phase(storage) if phase == "policy" else daac._value_phase(storage)
    after = groups(daac)
    own, other = (0, 1) if phase == "policy" else (1, 0)
    assert all(changed(before[own], after[own]))
    assert not any(changed(before[other], after[other]))


def test_the_value_network_comes_to_predict_the_returns():
    daac, storage = collected(DAAC, lr=1e-2, num_mini_batch=2, max_grad_norm=10.0, clip_range=100.0)

    def error():
        values = daac.policy.value(storage.obs[:-1]).detach()
        return float((values - storage.returns)[storage.valid].square().mean())

    first = error()
    for _ in range(10):
        daac.update(storage)
    assert error() < 0.3 * first


@pytest.mark.parametrize("value_freq", [1, 2, 3])
def test_the_value_phase_follows_every_value_freq_th_policy_phase(value_freq):
    daac, storage = collected(DAAC, value_freq=value_freq)
    phases = []
    for _ in range(6):
        before = groups(daac)
        info = daac.update(storage)
        policy, value = (any(changed(*pair)) for pair in zip(before, groups(daac), strict=True))
        assert policy
        assert value == ("value_loss" in info)
        phases.append(value)
    assert phases == [update % value_freq == 0 for update in range(1, 7)]


def test_the_stored_advantage_predictions_are_not_read():
    one, storage = collected(DAAC)
    other = copy.deepcopy(one)
    noisy = copy.deepcopy(storage)
    noisy.adv_preds.normal_()
    assert one.update(storage) == other.update(noisy)
    assert equal(groups(one), groups(other))


def test_the_advantages_scale_does_not_matter():
    one, storage = collected(DAAC)
    other = copy.deepcopy(one)
    scaled = copy.deepcopy(storage)
    scaled.advantages *= 8
    one._policy_phase(storage)
    other._policy_phase(scaled)
    for got, expected in zip(groups(one)[0], groups(other)[0], strict=True):
        torch.testing.assert_close(got, expected)
