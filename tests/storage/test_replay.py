import warnings

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from hypothesis import given
from hypothesis import strategies as st

from hsw.errors import ConfigError
from hsw.spaces import tree_map
from hsw.storage import ReplayStorage, records
from tests.helpers import ACTION_SPACES, OBS_SPACES, draw, equal
from tests.storage.naive import ACTION, PAIR, Driver, NaiveReplay, examples, layouts

MANY = examples(50)


def replay(capacity=4, num_envs=1, **kwargs):
    return ReplayStorage(PAIR, ACTION, "cpu", capacity * num_envs, num_envs, **kwargs)


def driver(capacity=4, num_envs=1, reset_rows=False, **kwargs):
    return Driver(replay(capacity, num_envs, **kwargs), NaiveReplay(num_envs, capacity), reset_rows)


def everything(storage):
    """All transitions as one batch, env after env, oldest first."""
    return next(storage.generate_batches(1, len(storage), shuffle=False))


def check(batch, transitions, n_step=1, discount=0.99):
    """A batch holds exactly these transitions, in this order."""
    sums, lasts, discounts = zip(*(step.n_step(n_step, discount) for step in transitions), strict=True)
    assert batch.obs.tolist() == [[step.env, step.obs] for step in transitions]
    assert batch.actions.tolist() == [step.action for step in transitions]
    assert np.allclose(batch.rewards, sums, rtol=1e-6)
    assert batch.next_obs.tolist() == [[last.env, last.next_obs] for last in lasts]
    assert batch.terminateds.tolist() == [last.terminated for last in lasts]
    assert batch.truncateds.tolist() == [last.truncated for last in lasts]
    assert np.allclose(batch.discounts, discounts, rtol=1e-6)


def by_obs(transitions):
    return {(step.env, step.obs): step for step in transitions}


# -- what is kept -----------------------------------------------------------------------------------------------------


@MANY
@given(layouts(), st.integers(1, 9), st.booleans(), st.integers(1, 4))
def test_of_any_layout_the_newest_transitions_are_kept_and_drawn(layout, capacity, reset_rows, n_step):
    num_envs, rows = layout
    drive = driver(capacity, num_envs, reset_rows, n_step=n_step, discount=0.9)
    for events in rows:
        drive.row(events)
        standing = drive.naive.standing()
        assert len(drive.storage) == len(standing) > 0
        check(everything(drive.storage), standing, n_step, 0.9)
    known = by_obs(standing)
    batch = drive.storage.sample()
    check(batch, [known[tuple(obs)] for obs in batch.obs.tolist()], n_step, 0.9)


@MANY
@given(layouts(30), st.integers(1, 6), st.lists(st.sampled_from(["truncate", "reset", "go"]), min_size=30, max_size=30))
def test_truncate_and_reset_between_any_rows(layout, capacity, acts):
    num_envs, rows = layout
    drive = driver(capacity, num_envs, n_step=3)
    for events, act in zip(rows, acts, strict=False):
        drive.row(events)
        if act != "go":
            getattr(drive, act)()
        standing = drive.naive.standing()
        assert len(drive.storage) == len(standing)
        if standing:
            check(everything(drive.storage), standing, 3)


@pytest.mark.parametrize("num_rows", [6, 7, 8, 50])
def test_the_newest_of_a_long_episode_are_exactly_as_many_as_the_capacity(num_rows):
    drive = driver(7, 2).rows([".."] * num_rows)
    assert len(drive.storage) == 2 * min(num_rows, 7)
    assert everything(drive.storage).obs[:, 1].max() == max(step.obs for step in drive.naive.standing())


def test_an_episode_of_the_capacity_stays_whole_until_the_next_transition():
    drive = driver(5).rows([*"....T"])
    assert len(drive.storage) == 5
    assert len(drive.row(".") and drive.storage) == 4  # the new one takes two places, as one that begins an episode


def test_reset_rows_are_not_stored_and_a_row_without_any_valid_env_changes_nothing():
    drive = driver(4, 2, reset_rows=True).rows(["Tt"])
    before = drive.storage.get_all_buffer_data()
    drive.row("..")
    assert equal(drive.storage.get_all_buffer_data(), before)
    assert len(drive.storage) == 2


def test_a_first_row_without_any_valid_env_leaves_the_replay_empty():
    storage, row = replay(4, 2), driver(4, 2).row("..")
    storage.add(**row, valid=np.zeros(2, bool))
    assert len(storage) == 0
    with pytest.raises(ConfigError, match="empty"):
        storage.sample()


def test_one_flag_tells_of_all_envs():
    storage, row = replay(4, 2), driver(4, 2).row("..")
    storage.add(**row, valid=True)
    assert len(storage) == 2


@pytest.mark.parametrize("size", [6, 7, 8])
def test_a_size_that_envs_do_not_divide_is_rounded_down(size):
    storage = ReplayStorage(PAIR, ACTION, "cpu", size, 3)
    drive = Driver(storage, NaiveReplay(3, 2)).rows(["..."] * 9)
    assert (storage.storage_size, len(storage)) == (size, 6)
    check(everything(storage), drive.naive.standing())


def test_less_than_one_transition_per_env_is_refused():
    with pytest.raises(ConfigError, match=r"storage_size=2 must be at least num_envs=3"):
        ReplayStorage(PAIR, ACTION, "cpu", 2, 3)


def test_drawing_from_nothing_is_refused():
    storage = replay()
    row = driver().row(".")
    for _ in range(2):
        for draw_one in (storage.sample, lambda: storage.generate_batches(1), lambda: storage.generate_batches(1, 1)):
            with pytest.raises(ConfigError, match="the replay is empty"):
                draw_one()
        assert len(storage) == 0
        storage.add(**row)
        storage.reset()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_batches_that_were_promised_before_a_reset_are_refused_after_it(num_envs, shuffle):
    drive = driver(4, num_envs).rows(["." * num_envs] * 3)
    batches = drive.storage.generate_batches(3, 2, shuffle=shuffle)
    next(batches)
    drive.reset()
    with pytest.raises(ConfigError, match="the replay is empty"):
        next(batches)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_batches_of_no_size_are_refused(numbers):
    storage = driver().rows(["."]).storage
    with pytest.raises(ConfigError, match="must be 1 or more"):
        storage.generate_batches(*numbers)


def test_unshuffled_batches_go_round():
    drive = driver(5).rows(["."] * 5)
    numbers = torch.cat([batch.obs[:, 1] for batch in drive.storage.generate_batches(2, 3, 2, shuffle=False)]).tolist()
    standing = [step.obs for step in drive.naive.standing()]
    assert numbers == (standing * 3)[:12]


# -- how it is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_transition_is_as_likely_whatever_its_episode_and_env(num_envs):
    # Episodes of 2, 1 and more steps; of 1 only in the second env, which has half as many transitions; one long one.
    rows = [(first + "T.")[:num_envs] for first in "..T.t......."]
    drive = driver(8, num_envs, reset_rows=True, batch_size=40_000).rows(rows)
    standing = drive.naive.standing()
    counts = dict.fromkeys(by_obs(standing), 0)
    for obs in drive.storage.sample().obs.tolist():
        counts[tuple(obs)] += 1
    expected = 40_000 / len(standing)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    degrees = len(standing) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("size", [1, 2, 500])
def test_batches_have_their_size_also_where_half_the_places_hold_no_transition(size):
    drive = driver(6, 2).rows(["TT"] * 20)
    assert len(drive.storage) == 2 * 3  # an episode of one step takes two of seven places
    batch = next(drive.storage.generate_batches(1, size))
    assert len(batch.rewards) == size
    known = by_obs(drive.naive.standing())
    check(batch, [known[tuple(obs)] for obs in batch.obs.tolist()])


# -- n-step returns ---------------------------------------------------------------------------------------------------


def test_n_step_sums_stop_at_both_kinds_of_ends_and_at_the_newest_row():
    drive = driver(12, n_step=3, discount=0.5).rows([*"..T..t.."])
    r = [step.reward for step in drive.naive.standing()]
    batch = everything(drive.storage)
    assert batch.rewards.tolist() == [
        r[0] + r[1] / 2 + r[2] / 4,
        r[1] + r[2] / 2,
        r[2],
        r[3] + r[4] / 2 + r[5] / 4,
        r[4] + r[5] / 2,
        r[5],
        r[6] + r[7] / 2,
        r[7],
    ]
    assert batch.discounts.tolist() == [0.125, 0.25, 0.5, 0.125, 0.25, 0.5, 0.25, 0.5]
    assert batch.terminateds.tolist() == [True] * 3 + [False] * 5
    assert batch.truncateds.tolist() == [False] * 3 + [True] * 3 + [False] * 2


# -- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("obs", OBS_SPACES)
def test_observations_keep_their_dtype_and_next_obs_is_where_the_step_led(obs):
    space = OBS_SPACES[obs]
    storage = ReplayStorage(space, ACTION_SPACES["discrete"], "cpu", 6, 2)
    firsts, finals, others = (draw(space, 2, seed) for seed in range(3))
    zeros, dones, actions = np.zeros(2), np.array([True, False]), np.array([1, 2])
    storage.add(firsts, actions, zeros, dones, ~dones, {}, finals)
    storage.add(others, actions, zeros, ~dones, ~dones, {}, firsts)
    batch = everything(storage)
    assert batch.actions.dtype == torch.int64
    assert (batch.rewards.dtype, batch.terminateds.dtype, batch.discounts.dtype) == (
        torch.float32,
        torch.bool,
        torch.float32,
    )
    order = [(0, firsts, finals), (0, others, firsts), (1, firsts, finals), (1, others, firsts)]
    for b, (n, before, after) in enumerate(order):
        assert equal(tree_map(lambda part, b=b: part[b], batch.obs), of_env(before, n))
        assert equal(tree_map(lambda part, b=b: part[b], batch.next_obs), of_env(after, n))


def of_env(batched, n):
    return tree_map(lambda part: torch.as_tensor(part[n]), batched)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, np.ndarray.tolist])
def test_rows_come_as_arrays_tensors_or_lists_flat_or_as_columns(convert):
    flat, column = replay(4, 2), replay(4, 2)
    row = driver(4, 2).row("T.")
    flat.add(**row)
    shaped = {name: convert(row[name].reshape(2, 1)) for name in ("actions", "rewards", "terminateds", "truncateds")}
    moved = {name: convert(row[name]) for name in ("observations", "next_observations")}
    column.add(**shaped, **moved, info={}, valid=convert(np.ones((2, 1), bool)))
    assert equal(column.get_all_buffer_data(), flat.get_all_buffer_data())


# -- memory -----------------------------------------------------------------------------------------------------------


def test_an_observation_is_stored_once():
    space = Dict({"image": Box(0, 255, (3, 32, 32), np.uint8), "depth": Box(0, 1, (32, 32), np.float16)})
    storage = ReplayStorage(space, ACTION, "cpu", 1000, 4)
    row = draw(space, 4, 0)
    storage.add(row, np.zeros(4, int), np.zeros(4), np.zeros(4, bool), np.zeros(4, bool), {}, row)
    observation = 3 * 32 * 32 + 2 * 32 * 32
    own = sum(part.nbytes for part in vars(storage.ring).values() if isinstance(part, np.ndarray) and part.base is None)
    assert 1004 * observation < own < 1004 * (observation + 40)


@pytest.mark.parametrize(("num_envs", "free"), [(1, 10_000), (3, 10_000), (7, 12_345), (4, 2**20)])
def test_what_cannot_fit_is_refused_before_it_is_allocated_naming_the_largest_that_does(monkeypatch, num_envs, free):
    monkeypatch.setattr(records, "available_memory", lambda: free)
    with pytest.raises(ConfigError, match=r"storage.storage_size=1000000000 needs .* GiB, (\d+) bytes") as error:
        ReplayStorage(PAIR, ACTION, "cpu", 10**9, num_envs)
    largest = int(str(error.value).rpartition("=")[2])
    assert ReplayStorage(PAIR, ACTION, "cpu", largest, num_envs).capacity == largest // num_envs
    with pytest.raises(ConfigError, match=f"storage_size={largest}$"):
        ReplayStorage(PAIR, ACTION, "cpu", largest + num_envs, num_envs)


def test_what_a_row_takes_is_refused_if_nothing_fits(monkeypatch):
    monkeypatch.setattr(records, "available_memory", lambda: -5)
    with pytest.raises(ConfigError, match=r"storage_size=0$"):
        replay()


def test_a_large_replay_takes_no_memory_until_it_is_filled():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    driver(2_000_000).rows(["."] * 10)  # 100 MB; the offsets beside the records are filled at once, 8 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


# -- data that is handed over -----------------------------------------------------------------------------------------


@examples(40)
@given(layouts(20), layouts(20), st.integers(1, 6), st.integers(0, 3))
def test_buffer_data_replaces_what_a_used_storage_holds_which_then_goes_on(layout, later, capacity, more):
    num_envs, rows = layout
    one = driver(capacity, num_envs, n_step=2).rows(rows)
    other = driver(capacity + more, num_envs, n_step=2).rows(["." * num_envs] * 3 + ["T" * num_envs] * more)
    other.storage.insert_data_slice(one.storage.get_all_buffer_data())
    assert equal(other.storage.get_all_buffer_data(), one.storage.get_all_buffer_data())
    one.storage, storage = other.storage, one.storage
    check(everything(one.storage), one.naive.standing(), 2)
    one.naive.capacity = capacity + more
    for n, places in enumerate(one.naive.places):  # what the smaller one forgot is not there
        kept = capacity + 1 - bool(one.naive.running[n])
        one.naive.places[n] = places[max(0, len(places) - kept) :]
    for events in later[1]:
        one.row((events * 3)[:num_envs])
        check(everything(one.storage), one.naive.standing(), 2)
    assert storage is not one.storage


def test_buffer_data_of_more_rows_or_envs_is_refused():
    data = driver(6, 2).rows([".."] * 6).storage.get_all_buffer_data()
    for small in (replay(5, 2), replay(6, 1)):
        with pytest.raises(ConfigError, match="do not fit"):
            small.insert_data_slice(data)


def test_signatures_are_those_that_agents_and_configs_rely_on():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        storage = ReplayStorage(PAIR, ACTION, storage_size=10)
    assert (storage.num_envs, storage.batch_size, storage.n_step, storage.discount) == (1, 256, 1, 0.99)
    assert storage.extras() == ()
    assert storage.update() is None
