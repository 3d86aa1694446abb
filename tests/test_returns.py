import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsw.returns import discounted_sum, gae
from tests.helpers import naive_gae


def layout(ends):
    """Flags for one environment from its rows' kinds: "." runs on, "T" terminates, "C" is cut off, "r" resets."""
    rows = [[kind == wanted for kind in ends] for wanted in "TCr"]
    terminateds, truncateds, resets = (torch.tensor(row).unsqueeze(1) for row in rows)
    return terminateds, truncateds, ~resets


def rollout(ends, seed=0):
    generator = torch.Generator().manual_seed(seed)
    terminateds, truncateds, valid = layout(ends)
    rewards = torch.randn(len(ends), 1, generator=generator) * valid
    values = torch.randn(len(ends) + 1, 1, generator=generator)
    return rewards, values, terminateds, truncateds, valid


def random_ends(kinds, length, resets):
    """Row kinds, if asked with a reset row after each done, as NEXT_STEP backends give them."""
    rows = []
    for kind in kinds:
        rows += [kind, "r"] if resets and kind != "." else [kind]
    return (rows + ["."] * length)[:length]


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.lists(st.sampled_from("....TC"), max_size=20), min_size=1, max_size=4),
    length=st.integers(1, 20),
    discount=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    resets=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gae_is_the_formula_on_any_layout_of_episodes(kinds, length, discount, gae_lambda, resets, seed):
    columns = [rollout(random_ends(kind, length, resets), seed + i) for i, kind in enumerate(kinds)]
    rewards, values, terminateds, truncateds, valid = (torch.cat(column, 1) for column in zip(*columns, strict=True))
    args = (rewards, values, terminateds, truncateds, discount, gae_lambda)
    expected = naive_gae(*args, valid)
    torch.testing.assert_close(gae(*args, valid), expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "ends",
    [
        "........",
        "...T",
        "...C",
        "..Tr...",
        "..Cr...",
        "..T...",
        "..C...",
        "TCTC",
        "TrTrTr",
        "CrCrCr",
        "rrrr",
        "r...Cr.Tr",
        ".",
        "T",
        "C",
        "r",
    ],
)
def test_gae_is_the_formula_where_episodes_end(ends):
    rewards, values, terminateds, truncateds, valid = rollout(ends)
    expected = naive_gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    got = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)


# Seen elsewhere: the trace ran through a truncation into the next episode.
@pytest.mark.parametrize("row", [4, 5, 6])
@pytest.mark.parametrize("ends", ["..Cr...", "..C....", "..Tr...", "..T...."])
def test_truncation_does_not_leak_next_episode_value(ends, row):
    rewards, values, terminateds, truncateds, valid = rollout(ends)
    before = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    rewards[row] = values[row] = 1e6
    after = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3:], after[3:])


# Seen elsewhere: the truncated step's advantage was zeroed, or taken for a termination.
def test_truncated_step_bootstraps_from_where_it_led():
    rewards, values, terminateds, truncateds, valid = rollout("..Cr...")
    got = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    assert float(got[2]) == pytest.approx(float(rewards[2] + 0.9 * values[3] - values[2]))


def test_terminated_step_does_not_bootstrap():
    rewards, values, terminateds, truncateds, valid = rollout("..Tr...")
    got = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    assert float(got[2, 0]) == pytest.approx(float(rewards[2, 0] - values[2, 0]))


def test_terminated_and_truncated_at_once_counts_as_terminated():
    rewards, values, terminateds, _, valid = rollout("..Tr...")
    both = gae(rewards, values, terminateds, terminateds, 0.9, 0.8, valid)
    assert torch.equal(both, gae(rewards, values, terminateds, torch.zeros_like(terminateds), 0.9, 0.8, valid))


def test_reset_rows_have_no_advantage_whatever_they_hold():
    rewards, values, terminateds, truncateds, valid = rollout("..Cr..")
    expected = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    rewards[3] = 1e6
    got = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    assert float(got[3]) == 0.0
    assert torch.equal(got, expected)


def test_last_row_bootstraps_from_the_last_value():
    rewards, values, terminateds, truncateds, valid = rollout("....")
    got = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, valid)
    assert float(got[3]) == pytest.approx(float(rewards[3] + 0.9 * values[4] - values[3]))


def test_lambda_one_is_the_discounted_return_less_the_value():
    rewards, values, terminateds, truncateds, _ = rollout(".....T")
    expected = sum(0.9**k * float(rewards[k]) for k in range(6)) - float(values[0])
    assert float(gae(rewards, values, terminateds, truncateds, 0.9, 1.0)[0]) == pytest.approx(expected, abs=1e-5)


def test_no_valid_means_that_every_row_is_valid():
    rewards, values, terminateds, truncateds, valid = rollout("..T..C")
    with_flags = gae(rewards, values, terminateds, truncateds, 0.9, 0.8, torch.ones_like(valid))
    assert torch.equal(gae(rewards, values, terminateds, truncateds, 0.9, 0.8), with_flags)


def test_arguments_are_left_alone_and_the_result_has_no_gradient():
    args = rollout("..Cr...")
    args[1].requires_grad_()
    before = [argument.detach().clone() for argument in args]
    got = gae(*args[:4], 0.9, 0.8, args[4])
    assert not got.requires_grad
    assert got.dtype == torch.float32
    assert all(torch.equal(argument, old) for argument, old in zip(args, before, strict=True))


@pytest.mark.parametrize("name", ["terminateds", "truncateds", "valid", "values"])
def test_shapes_that_disagree_are_refused_by_name(name):
    arguments = dict(zip(["rewards", "values", "terminateds", "truncateds", "valid"], rollout("....."), strict=True))
    arguments[name] = arguments[name][:-1]
    with pytest.raises(ValueError, match=name):
        gae(**arguments, discount=0.9, gae_lambda=0.8)


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(1, 70), seed=st.integers(0, 1000))
def test_discounted_sum_is_the_recursion(num_rows, seed):
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(num_rows, 3, generator=generator, dtype=torch.float64)
    decays = torch.rand(num_rows, 3, generator=generator, dtype=torch.float64) * 1.2
    expected, following = torch.zeros_like(deltas), torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(num_rows)):
        following = deltas[t] + decays[t] * following
        expected[t] = following
    torch.testing.assert_close(discounted_sum(deltas.clone(), decays.clone()), expected)
    in_numpy = discounted_sum(deltas.numpy().copy(), decays.numpy().copy())
    torch.testing.assert_close(torch.from_numpy(in_numpy), expected)
