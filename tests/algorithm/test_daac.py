import copy

import pytest
import torch

from hsw.algorithm import DAAC
from hsw.config.resolved import identity
from tests.algorithm.naive import Descent, collected, entropy, mean, normalized, same_batches, squared_error, surrogate
from tests.algorithm.naive import weights as copies
from tests.helpers import equal
from tests.runs import compose

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


# The authors count updates from 0 and look before they count (idaac's algo/daac.py); runs of 0.1.0 counted first.
@pytest.mark.parametrize(("first", "offset"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("value_freq", [1, 2, 3])
def test_one_update_in_value_freq_has_a_value_phase_from_the_first_on(value_freq, first, offset):
    daac, storage = collected(DAAC, value_freq=value_freq, value_phase_first=first)
    phases = []
    for _ in range(6):
        before = groups(daac)
        info = daac.update(storage)
        policy, value = (any(changed(*pair)) for pair in zip(before, groups(daac), strict=True))
        assert policy
        assert value == ("value_loss" in info)
        phases.append(value)
    assert phases == [(update + offset) % value_freq == 0 for update in range(6)]


def test_the_config_has_the_authors_order_and_a_stored_one_without_it_its_own():
    assert compose("agent=daac").algorithm.value_phase_first
    assert not collected(DAAC)[0].value_phase_first


@pytest.mark.parametrize(("freq", "named"), [(1, False), (2, True), (32, True)])
def test_the_order_is_part_of_a_jobs_identity_where_there_is_one(freq, named):
    told = identity(compose("agent=daac", f"algorithm.value_freq={freq}"))
    assert ("algorithm.value_phase_first" in told) is named


@pytest.mark.parametrize(("value_clip_range", "means"), [("clip_range", 0.3), (0.05, 0.05), (None, None)])
def test_the_values_have_a_clip_range_of_their_own(value_clip_range, means):
    kwargs = {"num_epochs": 1, "value_epochs": 1, "value_clip_range": value_clip_range, **COMMON}
    daac, storage = collected(DAAC, **kwargs)
    batches = same_batches(storage)
    list(batches.generate_batches(2, None, 1))  # the policy phase's
    batch = next(batches.generate_batches(2, None, 1))
    expected = 0.5 * squared_error(daac.policy.value(batch.obs), batch.values, batch.returns, means)
    seen = []
    daac.descend = lambda optimizer, loss, *rest: seen.append(float(loss.detach())) or 0.0
    daac.update(storage)
    assert seen[2] == pytest.approx(float(expected.detach()), rel=1e-4)


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
