"""How a rollout is split into minibatches."""

import pytest
import torch

from hsw.errors import ConfigError
from tests.storage.helpers import filled


# Seen elsewhere: 15 samples and num_mini_batch=8 made 15 batches of 1.
@pytest.mark.parametrize(
    ("num_steps", "num_envs", "num_mini_batch"), [(5, 3, 8), (5, 3, 1), (5, 3, 15), (4, 2, 3), (7, 5, 4), (1, 1, 1)]
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_cover_every_row_once_per_epoch_in_sizes_differing_by_at_most_one(
    num_steps, num_envs, num_mini_batch, shuffle
):
    storage = filled(num_steps, num_envs)
    batches = list(storage.generate_batches(num_mini_batch, None, 3, shuffle=shuffle))
    assert len(batches) == 3 * num_mini_batch
    sizes = [len(batch.returns) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    every = sorted(100 * t + n for t in range(num_steps) for n in range(num_envs))
    for epoch in range(3):
        names = torch.cat([b.log_probs for b in batches[epoch * num_mini_batch : (epoch + 1) * num_mini_batch]])
        assert sorted(names.int().tolist()) == every
        assert shuffle or names.int().tolist() == every


def test_every_epoch_has_an_order_of_its_own():
    first, second = (batch.log_probs.tolist() for batch in filled(8, 8).generate_batches(1, None, 2))
    assert first != second


def test_reset_rows_are_in_no_batch():
    valid = torch.ones(4, 2, dtype=torch.bool)
    valid[1, 0] = valid[3, 1] = False
    storage = filled(valid=valid)
    names = torch.cat([batch.log_probs for batch in storage.generate_batches(3)]).int().tolist()
    assert sorted(names) == [0, 1, 101, 200, 201, 300]


def test_too_many_minibatches_are_refused_naming_the_way_out():
    valid = torch.ones(4, 2, dtype=torch.bool)
    valid[0] = False
    with pytest.raises(ConfigError, match=r"6 transitions cannot make 8 minibatches.*num_mini_batch.*num_steps"):
        filled(valid=valid).generate_batches(8)
    with pytest.raises(ConfigError):
        filled().generate_batches(0)


@pytest.mark.parametrize(("size", "fits"), [(3, True), (2, False), (4, False)])
def test_mini_batch_size_may_repeat_what_num_mini_batch_implies_and_not_contradict_it(size, fits):
    storage = filled(4, 2)
    if fits:
        assert [len(batch.returns) for batch in storage.generate_batches(3, size)] == [3, 3, 2]
    else:
        with pytest.raises(ConfigError, match=f"mini_batch_size={size} contradicts num_mini_batch=3"):
            storage.generate_batches(3, size)


def test_sample_is_one_shuffled_epoch_of_eight_minibatches():
    batches = list(filled(8, 4).sample())
    assert [len(batch.returns) for batch in batches] == [4] * 8
    assert len(list(filled(8, 4).sample(num_mini_batch=2))) == 2
