"""Two ranks with half of the data each are one rank with all of it."""

import re

import numpy as np
import pytest

import hsw.ranks
from hsw.algorithm import DAAC
from hsw.errors import ConfigError
from hsw.ranks import SOLO, of_environment
from hsw.storage.her import HerReplayStorage
from tests import rank_jobs as jobs
from tests.rank_pair import two_ranks


@pytest.fixture(scope="module")
def pair():
    with two_ranks() as ranks:
        yield ranks


def apart(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def same(one, other, tolerance=1e-6):
    return apart(one, other) <= tolerance


# -- the ranks themselves -----------------------------------------------------------------------------------------


def test_reductions_are_the_same_on_every_rank(pair):
    first, second = pair(jobs.reductions)
    assert first.pop("gather") == [{"rank": 0}, {"rank": 1}]
    assert second.pop("gather") is None
    assert first == second
    assert first == {
        "sum": [2.0, 1.0],
        "mean": [1.0, 0.5],
        "weighted": [[3.0]],
        "heard": True,
        "broadcast": [5],
        "ints": 2**61 + 1,
        "floats": 0.5,
        "where": [1],
        "any": False,
        "parts": [[[0, 1, 2]], [[0, 1, 2], [3, 4, 5]]],
        "exchange": "ä",
        "first": {"scores": [1.5, 0]},
    }


def test_what_fails_on_rank_0_fails_on_the_others(pair):
    with pytest.raises(AssertionError, match="ZeroDivisionError: by nothing"):
        pair(jobs.fails_first)
    assert pair(jobs.seeds)[0] == jobs.seeds()  # both go on


def test_alone_every_call_is_the_identity():
    told = jobs.reductions()
    assert (told["sum"], told["mean"], told["weighted"]) == ([1.0, 0.0], [1.0, 0.0], [[0.0]])
    assert (told["ints"], told["floats"], told["where"], told["first"]) == (2**60, 0.25, [], {"scores": [1.5, 0]})
    assert told["gather"] == [{"rank": 0}]
    tensor = np.ones(3)
    assert SOLO.sum_(tensor) is tensor
    assert SOLO.mean_(tensor) is tensor


def test_each_rank_has_seeds_of_its_own_and_rank_0_those_of_a_run_alone(pair):
    first, second = pair(jobs.seeds)
    assert first == jobs.seeds()
    assert first[0] == 7
    assert set(first).isdisjoint(second)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),  # something else's, without a place to meet
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, (1, 2)),
    ],
)
def test_the_environment_tells_the_rank(monkeypatch, told, expected):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert of_environment() == expected


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "")])
def test_a_rank_that_makes_no_sense_is_refused(monkeypatch, rank, size):
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun"):
        of_environment()


# -- updates ------------------------------------------------------------------------------------------------------

ROLLOUTS = [
    # Rows that were resets are left out: the halves differ in number.
    ("PPO", {"masked": True, "num_mini_batch": 1, "num_epochs": 2}),
    ("PPO", {"masked": False, "num_mini_batch": 2, "num_epochs": 2, "max_grad_norm": 0.05}),
    ("PPO", {"masked": True, "num_mini_batch": 1, "num_epochs": 4, "target_kl": 2e-4, "normalize_advantages": False}),
    ("DAAC", {"masked": True, "num_mini_batch": 1, "value_epochs": 2}),
    ("DAAC", {"masked": False, "num_mini_batch": 2, "value_epochs": 2, "max_grad_norm": 0.05}),
]


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize(("kind", "options"), ROLLOUTS)
def test_half_of_the_environments_each_make_the_rollout_update_of_all(pair, kind, options, updates):
    first, second = pair(jobs.rollout_updates, kind, updates=updates, **options)
    assert all(map(np.array_equal, first, second))
    assert same(first, jobs.rollout_updates(kind, updates=updates, **options))


@pytest.mark.parametrize("kind", ["PPO", "DAAC"])
@pytest.mark.parametrize("wrong", ["own_moments", "own_rows"])
def test_that_comparison_notices_moments_or_weights_of_ones_own(pair, kind, wrong):
    options = {"masked": True, "num_mini_batch": 1}
    first, _ = pair(jobs.rollout_updates, kind, **options, **{wrong: True})
    assert not same(first, jobs.rollout_updates(kind, **options), 1e-5)


@pytest.mark.parametrize("updates", [1, 5])
def test_half_of_the_batch_each_makes_the_sac_update_of_all(pair, updates):
    first, second = pair(jobs.sac_updates, updates)
    assert all(map(np.array_equal, first, second))
    assert same(first, jobs.sac_updates(updates))


def test_that_comparison_notices_a_temperature_of_ones_own(pair):
    first, second = pair(jobs.sac_updates, 5, own_slope=True)
    assert first[-1] != second[-1]


@pytest.mark.parametrize("updates", [1, 4])
@pytest.mark.parametrize(("reduction", "lstm_size"), [("sum", 0), ("mean", 0), ("sum", 4)])
def test_a_part_of_the_windows_each_makes_the_impala_update_of_all(pair, reduction, lstm_size, updates):
    first, second = pair(jobs.impala_updates, reduction, lstm_size, updates)
    assert all(map(np.array_equal, first, second))
    assert same(first, jobs.impala_updates(reduction, lstm_size, updates))


@pytest.mark.parametrize("kind", ["PPO", "SAC"])
def test_a_nan_on_one_rank_raises_on_all_and_names_it(pair, kind):
    first, second = pair(jobs.poisoned_update, kind)
    assert first["message"] == second["message"]
    assert "loss" in first["message"]
    assert "on rank 1" in first["message"]
    assert (first["batch"], second["batch"]) == (False, True)  # the batch that is to blame
    assert first["same"]
    assert second["same"]


# -- moments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [False, True])
def test_shared_statistics_are_those_of_all_rows(pair, between):
    first, second = pair(jobs.running_moments, between=between)
    rows = np.concatenate(jobs.rows_of(0))
    expected = [rows.mean(0), rows.var(0), len(rows), rows[:, 0].mean(), rows[:, 0].var(), len(rows)]
    for got, other, right in zip(first, second, expected, strict=True):
        assert np.array_equal(got, other)
        np.testing.assert_allclose(got, right, rtol=1e-9)


def test_a_networks_statistics_are_those_of_all_rows(pair):
    first, second = pair(jobs.network_moments)
    rows = np.concatenate(jobs.rows_of(1))
    assert all(map(np.array_equal, first, second))
    for got, right in zip(first, [rows.mean(0), rows.var(0), len(rows)], strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-9)


def test_a_count_bonus_counts_what_any_rank_has_seen(pair):
    first, second = pair(jobs.counted)
    assert first == second == pytest.approx(jobs.counted())


# -- loops --------------------------------------------------------------------------------------------------------

LOOPS = [
    ("on_policy", 200, {"env": {"normalize_obs": True, "normalize_reward": True}}),
    ("on_policy", 150, {"kind": DAAC, "intrinsic": True}),
    ("off_policy", 60, {"network": {"normalize_obs": True}}),
    ("off_policy", 60, {"storage_type": HerReplayStorage, "name": "Homing"}),
    pytest.param("distributed", 150, {}, marks=pytest.mark.slow),  # actors start for seconds
]


@pytest.mark.parametrize(("kind", "budget", "options"), LOOPS)
def test_ranks_end_together_with_the_same_weights_and_the_budget_spent_by_both(pair, kind, budget, options):
    first, second = pair(jobs.looped, kind, budget, **options)
    assert first["ended"] == second["ended"] == ""
    assert budget <= first["step"] < 2 * budget
    for name in ("step", "updates", "scores", "best"):
        assert first[name] == second[name]
    assert all(map(np.array_equal, first["weights"], second["weights"]))
    assert first["first"] != second["first"]  # and yet not from the same draws


@pytest.mark.parametrize(("number", "loop"), [(21, LOOPS[0]), (8, LOOPS[2]), (8, LOOPS[3])])
def test_ranks_that_go_on_from_their_states_end_as_those_that_were_never_stopped(pair, number, loop):
    kind, budget, options = loop
    whole = pair(jobs.looped, kind, budget, **options)
    parts = pair(jobs.looped, kind, budget, signalled=number, resumed=True, **options)
    for one, other in zip(whole, parts, strict=True):
        assert other["ended"] == ""
        assert one["step"] == other["step"]
        assert all(map(np.array_equal, one["weights"], other["weights"]))


def test_running_statistics_of_batch_norm_are_the_same_on_all_ranks(pair):
    first, second = pair(jobs.looped, "on_policy", 100, batch_norm=True)
    assert all(map(np.array_equal, first["weights"], second["weights"]))


def test_a_logged_row_is_over_all_ranks(pair):
    first, second = pair(jobs.looped, "on_policy", 200)
    step, row = first["rows"][-1]
    assert step == first["step"]
    assert row["train/episodes"] == first["episodes"] + second["episodes"]
    assert second["rows"] == []  # rank 0 tells its callbacks


def test_a_callback_of_every_rank_is_told_the_same_everywhere(pair):
    first, second = pair(jobs.looped, "on_policy", 200, every_rank=True)
    assert first["rows"] == second["rows"] != []


def test_the_header_tells_the_number_of_ranks(pair):
    assert all("Bandit × 3 × 2 ranks" in told for told in pair(jobs.told_header))
    assert "Bandit × 3 · " in jobs.told_header()


@pytest.mark.parametrize(("device", "reason"), [("cuda:1", "take device=cuda"), ("cuda", "no CUDA device of its own")])
def test_ranks_that_would_share_a_cuda_device_are_refused(device, reason, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=reason):
        hsw.ranks._take_device(device, 1)


@pytest.mark.parametrize("kind", ["on_policy", "off_policy"])
@pytest.mark.parametrize("number", [1, 13, 40])
def test_a_signal_to_one_rank_stops_both_at_the_same_step(pair, kind, number):
    first, second = pair(jobs.looped, kind, 10_000, signalled=number)
    for told in (first, second):
        assert told["ended"].startswith("Interrupted: stopped by signal 15")
        assert told["own"] == 0  # all steps are counted
    assert first["step"] == second["step"]
    assert first["updates"] == second["updates"]
    assert all(map(np.array_equal, first["weights"], second["weights"]))


def test_an_update_that_one_rank_must_leave_is_undone_on_both(pair):
    first, second = pair(jobs.looped, "on_policy", 10_000, signalled_batch=5, algorithm={"num_epochs": 20})
    alone, _ = pair(jobs.looped, "on_policy", 1)
    assert first["updates"] == second["updates"] == 0
    assert first["step"] == second["step"] == alone["step"]
    assert all(map(np.array_equal, first["weights"], second["weights"]))
    assert not all(map(np.array_equal, first["weights"], alone["weights"]))


def test_what_a_callback_of_rank_0_asks_all_ranks_do(pair):
    first, second = pair(jobs.looped, "on_policy", 10_000, stop_at=150)
    assert 150 <= first["step"] == second["step"] < 400
    assert first["ended"] == second["ended"] == ""


def test_rank_0_evaluates_longer_than_the_others_would_wait_for_a_rank_that_is_lost(pair):
    first, second = pair(jobs.looped, "on_policy", 200, slow_evaluation=1.5, timeout=0.5)
    assert first["ended"] == second["ended"] == ""
    assert first["evaluations"]
    assert second["evaluations"] == []
    assert first["scores"] == second["scores"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("weights", "the networks' weights of rank 1 and rank 0 differ"),
        ("budget", r"num_train_steps of rank 1 and rank 0 differ \(101 and 100\)"),
        ("gradients", "PPO's first updates: its gradients are each rank's own"),
    ],
)
def test_ranks_that_would_drift_apart_are_refused(pair, what, reason):
    for kind, message in pair(jobs.unequal, what):
        assert kind == "ConfigError"
        assert re.search(reason, message)
