"""What every algorithm does alike."""

import copy
import math

import pytest
import torch

from hsw.algorithm import DAAC, PPO
from hsw.errors import ConfigError, NonFiniteError
from tests.algorithm.naive import collected, weights
from tests.helpers import equal

algorithms = pytest.mark.parametrize("kind", [PPO, DAAC], ids=lambda kind: kind.__name__)
SMALL = {"num_mini_batch": 2, "num_epochs": 1}


# Seen elsewhere: gradient clipping clipped nothing, for the optimiser had used up the parameters.
@algorithms
@pytest.mark.parametrize("max_grad_norm", [1e-3, 1e3])
def test_gradients_are_clipped_to_their_norm(kind, max_grad_norm):
    algorithm, storage = collected(kind, max_grad_norm=max_grad_norm, num_mini_batch=1, num_epochs=1)
    algorithm.update(storage)
    groups = {"all": algorithm.parameters} if kind is PPO else algorithm.parameters
    for parameters in groups.values():
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))
        assert norm == pytest.approx(1e-3, rel=1e-2) if max_grad_norm == 1e-3 else norm < 1e3


@algorithms
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["advantages", "log_probs", "returns"])
def test_a_loss_that_is_not_finite_stops_the_update_and_hands_over_the_batch(kind, field, bad):
    algorithm, storage = collected(kind, normalize_advantages=False) if kind is PPO else collected(kind)
    if field == "log_probs" and bad == math.inf:
        bad = -math.inf
    row = tuple(storage.valid.nonzero()[0].tolist())
    getattr(storage, field)[row] = bad
    with pytest.raises(NonFiniteError, match=f"of {kind.__name__}'s update 1 is not finite") as caught:
        algorithm.update(storage)
    assert field in caught.value.batch
    assert all(torch.isfinite(p).all() for p in algorithm.policy.parameters())


@algorithms
@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_linear_schedules_fall_to_zero_with_progress(kind, progress):
    algorithm, storage = collected(kind, lr=0.1, lr_schedule="linear", **SMALL)
    algorithm.progress = progress
    assert algorithm.update(storage)["lr"] == pytest.approx(0.1 * (1 - progress))


@algorithms
def test_a_constant_schedule_stays(kind):
    algorithm, storage = collected(kind, lr=0.1, lr_schedule="constant", **SMALL)
    algorithm.progress = 0.9
    assert algorithm.update(storage)["lr"] == 0.1


@algorithms
def test_a_learning_rate_of_zero_changes_nothing(kind):
    algorithm, storage = collected(kind, lr=0.0, **SMALL)
    before = weights(algorithm.policy.parameters())
    algorithm.update(storage)
    assert equal(weights(algorithm.policy.parameters()), before)


@algorithms
def test_a_lowered_learning_rate_reaches_the_optimiser_that_exists_already(kind):
    algorithm, storage = collected(kind, lr_schedule="constant", **SMALL)
    algorithm.update(storage)
    storage.bind(algorithm.policy, algorithm).update_storage_parameter("lr", 0.0)
    before = weights(algorithm.policy.parameters())
    algorithm.update(storage)
    assert equal(weights(algorithm.policy.parameters()), before)


@algorithms
@pytest.mark.parametrize("updates", [0, 1, 2])
def test_a_restored_algorithm_continues_bit_for_bit(kind, updates):
    one, storage = collected(kind, **SMALL)
    for _ in range(updates):
        one.update(copy.deepcopy(storage))
    other, _ = collected(kind, seed=7, **SMALL)
    other.policy.load_state_dict(one.policy.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert other.num_updates == updates
    infos = [algorithm.update(copy.deepcopy(storage)) for algorithm in (one, other)]
    assert infos[0] == infos[1]
    assert equal(weights(one.policy.parameters()), weights(other.policy.parameters()))


def test_optimisers_that_share_a_parameter_are_refused():
    algorithm, _ = collected(DAAC)
    shared = algorithm.parameters["policy"][0]
    algorithm.parameters["value"].append(shared)
    algorithm.make_optimizer("policy")
    with pytest.raises(ConfigError, match="'policy' and 'value' share a parameter"):
        algorithm.make_optimizer("value")


def test_a_parameter_that_is_given_twice_is_trained_once():
    one, storage = collected(PPO, **SMALL)
    other = copy.deepcopy(one)
    other.parameters = [*other.parameters, other.parameters[0]]
    one.update(copy.deepcopy(storage))
    other.update(copy.deepcopy(storage))
    assert equal(weights(one.policy.parameters()), weights(other.policy.parameters()))


# A copy's parameters are no views of its optimiser's: they would stand still.
@algorithms
def test_a_copy_made_between_two_updates_goes_on_as_the_original(kind):
    one, storage = collected(kind, **SMALL)
    one.update(copy.deepcopy(storage))
    other = copy.deepcopy(one)
    infos = [algorithm.update(copy.deepcopy(storage)) for algorithm in (one, other)]
    assert infos[0] == infos[1]
    assert equal(weights(one.policy.parameters()), weights(other.policy.parameters()))
