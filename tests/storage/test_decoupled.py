import inspect

import torch

from hsw.storage import DecoupledRolloutStorage, RolloutStorage
from tests.helpers import fill
from tests.storage.helpers import ACTION, OBS


def test_signatures_are_the_published_ones():
    init = inspect.signature(DecoupledRolloutStorage).parameters
    assert list(init) == [
        "observation_space",
        "action_space",
        "device",
        "num_steps",
        "num_envs",
        "discount",
        "gae_lambda",
    ]
    assert [parameter.default for parameter in init.values()][2:] == ["cpu", 256, 8, 0.99, 0.95]
    names = "self obs actions rewards terminateds truncateds next_obs log_probs values adv_preds valid"
    assert list(inspect.signature(DecoupledRolloutStorage.add).parameters) == names.split()
    assert inspect.signature(DecoupledRolloutStorage.sample).parameters["num_mini_batch"].default == 8


def test_extras_are_what_the_policy_contributes():
    assert RolloutStorage.extras() == ("log_probs", "values")
    assert DecoupledRolloutStorage.extras() == ("log_probs", "values", "adv_preds")


# Seen elsewhere: a batch unpacked by position had two fields swapped.
def test_batches_give_each_field_by_its_name():
    storage = DecoupledRolloutStorage(OBS, ACTION, "cpu", 4, 2)
    fill(storage, OBS, ACTION, 4, 2)
    names = storage.log_probs.clone()
    storage.values[:4], storage.adv_preds[:] = names + 0.25, names + 0.5
    storage.compute_returns_and_advantages(torch.zeros(2))
    storage.advantages[:], storage.returns[:] = names + 0.75, names + 0.125
    batch = next(storage.generate_batches(1))
    offsets = {"values": 0.25, "adv_preds": 0.5, "advantages": 0.75, "returns": 0.125}
    for name, offset in offsets.items():
        assert torch.equal(getattr(batch, name), batch.log_probs + offset)
