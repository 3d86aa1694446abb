import inspect
import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from hypothesis import given
from hypothesis import strategies as st

from hsw.errors import ConfigError
from hsw.storage import HerReplayStorage, ReplayStorage
from tests.helpers import draw, equal
from tests.storage.naive import ACTION, GOALS, PAIR, Driver, NaiveHer, NaiveReplay, examples, layouts

STRATEGIES = ("future", "final", "episode")
MANY = examples(35)


def reward_of(achieved, desired, info=None):
    """No stored reward is like it: they are not negative."""
    return -1 - np.abs(np.asarray(achieved) - desired).sum(-1)


def terminated_of(achieved, desired, info=None):
    return np.asarray(desired)[..., 1] % 2 == 0


def her(capacity=6, num_envs=1, **kwargs):
    kwargs = {"reward_fn": reward_of, "terminated_fn": terminated_of, "batch_size": 30, **kwargs}
    return HerReplayStorage(GOALS, ACTION, "cpu", capacity * num_envs, num_envs, **kwargs)


def driver(capacity=6, num_envs=1, reset_rows=False, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Driver(her(capacity, num_envs, **kwargs), NaiveHer(num_envs, capacity), reset_rows, goals=True)


def everything(storage):
    return next(storage.generate_batches(1, len(storage), shuffle=False))


def check(batch, transitions, strategy, recompute=True):
    """Each element of a batch is one of these transitions, with its own goal or one that it may have in hindsight.

    Returns:
        (env, obs) of each, and the goal that it was given or None, in the order of the batch.
    """
    known = {(step.env, step.obs): step for step in transitions}
    found = []
    for b, (env, obs) in enumerate(batch.obs["observation"].tolist()):
        step = known[env, obs]
        desired, following = batch.obs["desired_goal"][b], batch.next_obs["desired_goal"][b]
        assert torch.equal(desired, following)
        assert batch.obs["achieved_goal"][b].tolist() == [env, obs]
        assert batch.next_obs["observation"][b].tolist() == [env, step.next_obs]
        assert batch.next_obs["achieved_goal"][b].tolist() == [env, step.next_obs]
        assert (int(batch.actions[b]), bool(batch.truncateds[b])) == (step.action, step.truncated)
        if desired.tolist() == [env, step.goal]:
            assert (float(batch.rewards[b]), bool(batch.terminateds[b])) == (step.reward, step.terminated)
            found.append(((env, obs), None))
            continue
        goal = float(desired[1])
        assert desired[0] == env
        assert goal in NaiveHer.goals(step, strategy)
        assert float(batch.rewards[b]) == reward_of([env, step.next_obs], [env, goal])
        assert bool(batch.terminateds[b]) == (goal % 2 == 0 if recompute else step.terminated)
        found.append(((env, obs), goal))
    return found


# -- which transitions, which goals -----------------------------------------------------------------------------------


@MANY
@pytest.mark.parametrize("strategy", STRATEGIES)
@given(layouts(), st.integers(1, 9), st.booleans())
def test_of_any_layout_whole_episodes_are_drawn_with_goals_that_they_achieved(strategy, layout, capacity, reset_rows):
    num_envs, rows = layout
    drive = driver(capacity, num_envs, reset_rows, goal_selection_strategy=strategy)
    for events in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drive.row(events)
        standing = drive.naive.standing()
        assert len(drive.storage) == len(standing) > 0
        check(drive.storage.sample(0), standing, strategy)
    # In order and with a goal in hindsight for most: every transition that stands, and no other.
    found = check(everything(drive.storage), standing, strategy)
    assert [name for name, _ in found] == [(step.env, step.obs) for step in standing]


@MANY
@given(layouts(30), st.integers(1, 6), st.lists(st.sampled_from(["truncate", "reset", "go"]), min_size=30, max_size=30))
def test_truncate_and_reset_between_any_rows(layout, capacity, acts):
    num_envs, rows = layout
    drive = driver(capacity, num_envs)
    for events, act in zip(rows, acts, strict=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drive.row(events)
        if act != "go":
            getattr(drive, act)()
        if standing := drive.naive.standing():
            check(everything(drive.storage), standing, "future")
            check(drive.storage.sample(0), standing, "future")
        else:
            with pytest.raises(ConfigError, match="empty"):
                drive.storage.sample(0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_envs", [1, 2])
def test_transitions_and_their_goals_are_as_likely_as_the_paper_says(strategy, num_envs):
    # Episodes of 1, 3 and 4 steps and a running one of 2; the other env's first is overwritten, 2 of its 13 places.
    rows = ["T.", "..", ".T", "Tt", "..", "..", "..", "tt", "..", ".."]
    size = 8_000
    drive = driver(12, num_envs, goal_selection_strategy=strategy, batch_size=size).rows([r[:num_envs] for r in rows])
    standing = drive.naive.standing()
    counts = Counter(check(drive.storage.sample(0), standing, strategy))
    expected = {}
    for step in standing:
        expected[(step.env, step.obs), None] = size / len(standing) / 5
        goals = drive.naive.goals(step, strategy)
        expected |= {((step.env, step.obs), goal): size / len(standing) * 4 / 5 / len(goals) for goal in goals}
    chi_square = sum((counts[key] - mean) ** 2 / mean for key, mean in expected.items())
    degrees = len(expected) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


def test_goals_come_from_where_a_step_led_so_a_step_can_achieve_its_own():
    drive = driver(batch_size=100).rows(["T"])  # one step: its own next state is the only goal
    step = drive.naive.standing()[0]
    batch = drive.storage.sample(0)
    assert set(batch.obs["desired_goal"][:, 1].tolist()) == {step.next_obs, step.goal}
    assert set(batch.rewards.tolist()) == {-1.0, step.reward}


@pytest.mark.parametrize("num_goals", [0, 1, 4, 9])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_virtual_part_is_k_of_k_plus_1_of_every_batch(num_goals, size):
    drive = driver(num_goals=num_goals, batch_size=size).rows([*"...t"])
    batches = [drive.storage.sample(0) for _ in range(1500 // size)]
    counts = [int((batch.rewards < 0).sum()) for batch in batches]
    exact = size * num_goals / (num_goals + 1)
    assert set(counts) <= {int(exact), int(np.ceil(exact))}
    assert np.mean(counts) / size == pytest.approx(num_goals / (num_goals + 1), abs=0.05)


# -- which episodes stand ---------------------------------------------------------------------------------------------


def test_an_episode_of_the_capacity_stays_whole_until_the_next_transition():
    drive = driver(5, num_goals=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is not longer than the ring
        drive.rows([*"....T"])
    assert everything(drive.storage).obs["observation"][:, 1].tolist() == [step.obs for step in drive.naive.standing()]
    assert len(drive.storage) == 5
    drive.row(".")
    assert len(drive.storage) == 1  # half an episode is none


def test_each_env_loses_its_own_episodes():
    drive = driver(6, 2, num_goals=0).rows(["T.", "T.", "T.", "TT", "..", "..", "..", "..", "T."])
    ends = Counter(int(env) for env, _ in everything(drive.storage).obs["observation"].tolist())
    assert ends == {0: 5, 1: 5}
    check(everything(drive.storage), drive.naive.standing(), "future")


def test_running_episodes_are_drawn_as_far_as_they_are():
    drive = driver(20, batch_size=200).rows([*"..t..."])
    running = [step.next_obs for step in drive.naive.standing()[3:]]
    batch = drive.storage.sample(0)
    of_running = batch.obs["observation"][:, 1] >= drive.naive.standing()[3].obs
    goals = set(batch.obs["desired_goal"][of_running & (batch.rewards < 0)][:, 1].tolist())
    assert goals == set(running)


@pytest.mark.parametrize("capacity", [1, 2, 8, 20])
def test_an_episode_without_end_is_said_once_and_leaves_something_to_draw(capacity):
    drive = driver(capacity, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(5 * capacity):
            drive.row("..")
            found = check(drive.storage.sample(0), drive.naive.standing(), "future")
            assert len(found) == 30
    assert [f"longer than the {capacity} transitions" in str(warning.message) for warning in caught] == [True]


# -- rewards and terminations of new goals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        np.float32,
        lambda r: r[:, None],
        list,
        lambda r: r.tolist(),
        torch.as_tensor,
        lambda r: torch.as_tensor(r)[:, None].float(),
        lambda r: r.astype(int),
    ],
)
def test_rewards_may_come_in_any_form_that_has_one_for_each(form):
    drive = driver(reward_fn=lambda *args: form(reward_of(*args))).rows([*"..t"])
    check(drive.storage.sample(0), drive.naive.standing(), "future")


@pytest.mark.parametrize("form", [lambda r: r[:-1], lambda r: r.mean(), lambda r: np.stack([r, r], 1), lambda r: None])
def test_rewards_of_another_number_are_refused(form):
    drive = driver(reward_fn=lambda *args: form(reward_of(*args))).rows([*"..t"])
    with pytest.raises(ConfigError, match=r"reward_fn gave .* for 2\d transitions"):
        drive.storage.sample(0)


def test_terminations_of_another_number_are_refused():
    drive = driver(terminated_fn=lambda *args: np.array([True, False])).rows([*"..t"])
    with pytest.raises(ConfigError, match=r"terminated_fn gave \(2,\) for 2\d transitions"):
        drive.storage.sample(0)


@pytest.mark.parametrize("kwargs", [{"terminated_fn": None}, {"recompute_terminateds": False}])
def test_terminations_keep_the_real_goals_flags_if_asked_or_without_a_function(kwargs):
    drive = driver(**kwargs).rows([*".bT..t"])
    check(drive.storage.sample(0), drive.naive.standing(), "future", recompute=False)


@pytest.mark.parametrize("form", [np.asarray, lambda t: t[:, None], list, torch.as_tensor, np.float32])
def test_terminations_may_come_in_any_form_that_has_one_for_each(form):
    drive = driver(terminated_fn=lambda *args: form(terminated_of(*args))).rows([*".bT..t"])
    check(drive.storage.sample(0), drive.naive.standing(), "future")


def test_reward_fn_is_called_once_per_batch_with_arrays():
    calls = []

    def reward_fn(achieved, desired, info):
        calls.append((type(achieved), achieved.shape, desired.shape, info))
        return reward_of(achieved, desired)

    drive = driver(reward_fn=reward_fn, batch_size=100).rows([*"..t"])
    drive.storage.sample(0)
    assert calls == [(np.ndarray, (80, 2), (80, 2), {})]


def test_no_virtual_transition_needs_no_reward():
    drive = driver(reward_fn=lambda *args: 1 / 0, num_goals=0).rows([*"..t"])
    drive.storage.sample(0)


def test_what_reward_fn_does_to_its_arguments_changes_nothing_stored():
    def reward_fn(achieved, desired, info):
        rewards = reward_of(achieved, desired)
        for part in (achieved, desired):
            part[:] = 0
        return rewards

    drive = driver(reward_fn=reward_fn).rows([*"..t"])
    before = drive.storage.get_all_buffer_data()
    drive.storage.sample(0)
    assert equal(drive.storage.get_all_buffer_data(), before)


def test_without_any_reward_fn_drawing_is_refused():
    drive = driver(reward_fn=None).rows([*"..t"])
    with pytest.raises(ConfigError, match="give reward_fn, or an environment that has compute_reward"):
        drive.storage.sample(0)


def test_the_environments_functions_are_taken_unless_given():
    class Env:
        compute_reward, compute_terminated = staticmethod(reward_of), staticmethod(terminated_of)

    own = her()
    own.attach(type("Env", (), {"compute_reward": None, "compute_terminated": None}))
    assert (own.reward_fn, own.terminated_fn) == (reward_of, terminated_of)
    none = her(reward_fn=None, terminated_fn=None)
    none.attach(Env)
    assert (none.reward_fn, none.terminated_fn) == (reward_of, terminated_of)


# -- info -------------------------------------------------------------------------------------------------------------


def info_of(form, numbers):
    """A float and a vector for each env, and what cannot be kept."""
    if form == "list":
        return [{"x": n / 4, "v": np.array([n, n + 1]), "word": "a", "more": {"y": 1}} for n in numbers]
    array = np.array(numbers)
    words = np.array([object()] * len(numbers))
    return {"x": array / 4, "v": np.stack([array, array + 1], 1), "_x": array > 0, "word": words, "more": {"y": array}}


@pytest.mark.parametrize("form", ["vector", "list"])
def test_info_of_the_transition_reaches_reward_fn_if_it_is_kept(form):
    seen = []

    def reward_fn(achieved, desired, info):
        seen.append((achieved, info))
        return reward_of(achieved, desired)

    storage = her(8, 2, reward_fn=reward_fn, copy_info_dict=True)
    drive = Driver(storage, NaiveHer(2, 8), goals=True)
    numbers = itertools.count()
    add, infos = storage.add, {}

    def with_info(**row):
        info = [next(numbers) for _ in range(2)]
        for n in range(2):
            infos[n, row["next_observations"]["achieved_goal"][n, 1]] = info[n]
        add(**{**row, "info": info_of(form, info)})

    storage.add = with_info
    drive.rows(["..", ".t", "..", "T.", ".."])
    storage.sample(0)
    achieved, info = seen[0]
    assert set(info) == {"x", "v"}
    known = np.array([infos[n, number] for n, number in achieved])
    assert np.array_equal(info["x"], known / 4)
    assert np.array_equal(info["v"], np.stack([known, known + 1], 1))


def test_info_that_comes_later_or_not_at_all():
    row = driver(4, 2).row("..")
    storage = her(4, 2, copy_info_dict=True)
    storage.add(**{**row, "info": [{}, {"x": 1.5}]})
    storage.add(**{**row, "info": {"y": np.ones(2)}})
    data = storage.get_all_buffer_data()
    assert data["info/x"][data["offsets"] >= 0].tolist() == [0, 0, 1.5, 0]
    assert "info/y" not in data


def test_info_is_not_kept_unless_asked():
    storage, row = her(4, 2), driver(4, 2).row("..")
    storage.add(**{**row, "info": info_of("list", [1, 2])})
    assert not any("info" in name for name in storage.get_all_buffer_data())


# -- the class --------------------------------------------------------------------------------------------------------


def test_signatures_are_the_published_ones():
    init = inspect.signature(HerReplayStorage).parameters
    positional = [name for name, p in init.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = "observation_space action_space device storage_size num_envs batch_size goal_selection_strategy num_goals"
    assert positional == [*names.split(), "reward_fn", "copy_info_dict"]
    assert [init[n].default for n in positional[2:]] == ["cpu", 1_000_000, 1, 1024, "future", 4, None, False]
    add = "self observations actions rewards terminateds truncateds info next_observations valid"
    assert list(inspect.signature(HerReplayStorage.add).parameters) == add.split()
    assert list(inspect.signature(HerReplayStorage.sample).parameters) == ["self", "step"]
    assert her().update(1, 2) is None


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ConfigError, match="random does not exist; take future, final, episode"):
        her(goal_selection_strategy="random")


@pytest.mark.parametrize("space", [PAIR, Dict({"observation": PAIR, "achieved_goal": PAIR})])
def test_observations_without_goals_are_refused(space):
    with pytest.raises(ConfigError, match=r"missing: .*desired_goal"):
        HerReplayStorage(space, ACTION, storage_size=4)


def test_goals_of_two_shapes_are_refused():
    space = Dict({**GOALS.spaces, "desired_goal": Box(-1, 1, (3,), np.float32)})
    with pytest.raises(ConfigError, match="achieved_goal"):
        HerReplayStorage(space, ACTION, storage_size=4)


def test_pixels_beside_goals_stay_bytes():
    space = Dict({**GOALS.spaces, "observation": Box(0, 255, (3, 8, 8), np.uint8)})
    storage = HerReplayStorage(space, ACTION, "cpu", 8, 2, reward_fn=reward_of)
    row, zeros = draw(space, 2, 0), np.zeros(2)
    storage.add(row, np.zeros(2, int), zeros, zeros, zeros, {}, row)
    assert storage.sample(0).obs["observation"].dtype == torch.uint8


# -- data that is handed over -----------------------------------------------------------------------------------------


@examples(40)
@given(layouts(25), st.integers(1, 8), st.integers(1, 8))
def test_buffer_data_of_any_storage_leaves_only_whole_episodes(layout, capacity, size):
    """Also that of one with another capacity, if its rows fit."""
    num_envs, rows = layout
    one = driver(capacity, num_envs)
    other = her(size, num_envs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one.rows(rows)
        try:
            other.insert_data_slice(one.storage.get_all_buffer_data())
        except ConfigError:
            assert size < capacity
            return
        check(everything(other), one.naive.standing(), "future")
        # It goes on, there is something to draw, and soon all is new.
        drive = Driver(other, NaiveHer(num_envs, size), goals=True)
        for events in ["." * num_envs] * (size + 1) + ["T" * num_envs] + ["." * num_envs] * (size + 1):
            drive.row(events)
            assert len(other.sample(0).rewards) == 30
    check(everything(other), drive.naive.standing(), "future")


@pytest.mark.parametrize("steps", [3, 4, 5, 9])
def test_a_running_episode_that_fills_the_ring_it_is_put_into_ends_there(steps):
    """In what a replay without hindsight holds of it, its beginning is missing."""
    plain, storage = ReplayStorage(GOALS, ACTION, "cpu", 4), her(4)
    Driver(plain, NaiveReplay(1, 4), goals=True).rows(["."] * steps)
    storage.insert_data_slice(plain.get_all_buffer_data())
    assert len(storage) == (steps if steps <= 4 else 0)
    drive = Driver(storage, NaiveHer(1, 4), goals=True)
    if steps >= 4:
        drive.row(".")
        check(storage.sample(0), drive.naive.standing(), "future")
