"""The life cycle that every concrete storage goes through, whatever the spaces and the form they come in."""

import inspect
import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import hsw.storage
from hsw.errors import ConfigError
from hsw.spaces import space_config, tree_map
from hsw.storage import Storage
from tests.helpers import ACTION_SPACES, equal
from tests.storage.families import ACTOR, NUM_ENVS, NUM_STEPS, family, minimal

CONCRETE = [
    kind
    for kind in map(hsw.storage.__dict__.get, hsw.storage.__all__)
    if inspect.isclass(kind) and issubclass(kind, Storage) and not inspect.isabstract(kind)
]
FAMILIES = [family(kind) for kind in CONCRETE]

FORMS = {
    "gymnasium": lambda of, obs, action: (of.obs_spaces[obs], ACTION_SPACES[action]),
    "config": lambda of, obs, action: tuple(
        OmegaConf.create(space_config(space)) for space in (of.obs_spaces[obs], ACTION_SPACES[action])
    ),
    "minimal": lambda of, obs, action: minimal(obs, action),
    "minimal_config": lambda of, obs, action: tuple(map(OmegaConf.create, minimal(obs, action))),
}

every_kind = pytest.mark.parametrize("of", FAMILIES, ids=lambda of: of.kind.__name__)
every_space = pytest.mark.parametrize(
    ("of", "obs", "action"),
    [
        pytest.param(of, obs, action, id=f"{of.kind.__name__}-{obs}-{action}")
        for of in FAMILIES
        for obs in of.obs_spaces
        for action in ACTION_SPACES
    ],
)


def some(of, **kwargs):
    """A storage of the family's first spaces, and rows for it."""
    obs = next(iter(of.obs_spaces))
    return of.make((of.obs_spaces[obs], ACTION_SPACES["box"]), **kwargs), of.rows(obs, "box")


def filled(of, **kwargs):
    storage, rows = some(of, **kwargs)
    for row in rows:
        of.add(storage, row)
    storage.before_gradients(ACTOR, storage.algorithm)
    return storage


# Defects 1, 2, 6: named fields, int64 discrete actions, Box actions with all their dimensions.
@pytest.mark.parametrize("form", FORMS)
@every_space
def test_what_goes_in_row_by_row_comes_out_in_batches_under_its_name(of, obs, action, form):
    # No goal in hindsight replaces what went in.
    kwargs = {"num_goals": 0} if "num_goals" in inspect.signature(of.kind).parameters else {}
    storage = of.make(FORMS[form](of, obs, action), **kwargs)
    rows = of.rows(obs, action)
    storage.init_tensors(rows[0])
    storage.insert_transition(rows[0])
    for row in rows[1:]:
        of.add(storage, row)
    storage.before_gradients(ACTOR, storage.algorithm)
    seen = []
    for shuffle in (False, True):
        for batch in storage.generate_batches(NUM_ENVS, of.mini_batch_size, shuffle=shuffle):
            fields = of.fields(batch)
            for b, (t, n) in enumerate(of.names(fields)):
                seen.append((t, n))
                for name, value in of.expected(rows, t, n).items():
                    assert getattr(batch, name) is not None
                    assert equal(tree_map(lambda part, b=b: part[b], fields[name]), value), name
    every = [(t, n) for t in range(NUM_STEPS) for n in range(NUM_ENVS)]
    assert sorted(seen[: len(every)]) == every  # in order, each comes once
    assert set(seen[len(every) :]) <= set(every)
    info = {"loss": 1.0}
    assert storage.after_gradients(ACTOR, storage.algorithm, info) == info


@every_space
@pytest.mark.parametrize("count", [0, 2, NUM_STEPS])
def test_another_storage_continues_with_what_one_hands_over(of, obs, action, count):
    spaces = of.obs_spaces[obs], ACTION_SPACES[action]
    one, by_slice, by_state = of.make(spaces), of.make(spaces), of.make(spaces)
    rows = of.rows(obs, action)
    one.seed(5)
    for row in rows[:count]:
        of.add(one, row)
    if count:
        of.add(by_slice, rows[-1])  # is replaced
    by_slice.insert_data_slice(one.get_all_buffer_data(data_to_cpu=True))
    by_state.load_state_dict(one.state_dict())
    assert equal(by_slice.get_all_buffer_data(), one.get_all_buffer_data())
    assert equal(by_state.state_dict(), one.state_dict())
    batches = []
    for storage in (one, by_state):
        for row in rows[count:]:
            of.add(storage, row)
        storage.before_gradients(ACTOR, None)
        batches.append([of.fields(batch) for batch in storage.generate_batches(NUM_ENVS, of.mini_batch_size, 2)])
    assert equal(*batches)


@every_kind
def test_buffer_data_is_a_copy(of):
    storage = filled(of)
    before = storage.get_all_buffer_data()
    tree_map(lambda part: part.zero_(), storage.get_all_buffer_data())
    assert equal(storage.get_all_buffer_data(), before)


@every_kind
def test_what_is_stored_does_not_change_with_batches_or_with_the_callers_arrays(of):
    storage, rows = some(of)
    for row in rows:
        of.add(storage, row)
        tree_map(lambda part: np.asarray(part).fill(0), row)
    storage.before_gradients(ACTOR, None)
    before = storage.get_all_buffer_data()
    assert bool(before["actions"].any())
    for batch in storage.generate_batches(NUM_ENVS, of.mini_batch_size):
        tree_map(lambda part: part.zero_(), of.fields(batch))
    assert equal(storage.get_all_buffer_data(), before)


@every_kind
def test_factory_takes_positional_and_named_arguments_alike(of):
    spaces = {"observation_space": next(iter(of.obs_spaces.values())), "action_space": ACTION_SPACES["box"]}
    named = of.kind.create_factory(size=of.size, **spaces, **of.arguments)
    positional = of.kind.create_factory(of.size, *spaces.values(), *of.arguments.values())
    for factory in (named, positional):
        storage = factory("cpu", ACTOR, "algorithm")
        assert type(storage) is of.kind
        assert (storage.size, getattr(storage, of.kind.size_name)) == (of.size, of.size)
        assert {name: getattr(storage, name) for name in of.arguments} == of.arguments
        assert (storage.actor, storage.algorithm) == (ACTOR, "algorithm")
    assert named("cpu", ACTOR, None) is not named("cpu", ACTOR, None)


@every_kind
def test_parameters_of_storage_and_algorithm_are_set_and_unknown_ones_refused(of):
    storage, _ = some(of)
    storage.update_storage_parameter("discount", 0.5)
    storage.update_storage_parameter("lr", 0.2)
    assert (storage.discount, storage.algorithm.lr) == (0.5, 0.2)
    for unknown in ("gama", "_rows"):
        with pytest.raises(AttributeError, match=unknown):
            storage.update_storage_parameter(unknown, 1)


@every_kind
def test_reset_forgets_what_is_stored(of):
    storage, rows = some(of)
    for row in rows:
        of.add(storage, row)
    assert of.count(storage) == NUM_STEPS * NUM_ENVS
    storage.reset()
    assert of.count(storage) == 0
    with pytest.raises(ConfigError):
        next(storage.generate_batches(1))
    of.add(storage, rows[0])
    assert of.count(storage) == of.width


@every_kind
def test_batches_come_from_the_storages_own_generator(of):
    def batches(seed):
        torch.rand(3), np.random.rand(3), random.random()
        storage, rows = some(of)
        storage.seed(seed)
        for row in rows:
            of.add(storage, row)
        storage.before_gradients(ACTOR, None)
        return [of.fields(batch) for batch in storage.generate_batches(NUM_ENVS, of.mini_batch_size, 3)]

    first = batches(1)
    assert equal(first, batches(1))
    assert not equal(first, batches(2))


@every_kind
def test_global_generators_stay_untouched(of):
    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    storage = filled(of)
    storage.seed(3)
    list(storage.generate_batches(NUM_ENVS, of.mini_batch_size))
    storage.load_state_dict(storage.state_dict())
    storage.truncate()
    assert states() == before
