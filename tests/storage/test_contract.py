"""The life cycle that every concrete storage goes through, whatever the spaces and the form they come in."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

import hsw.storage
from hsw.spaces import space_config, tree_map
from hsw.storage import Storage
from tests.helpers import ACTION_SPACES, OBS_SPACES, equal, tensors, transition

CONCRETE = [
    kind
    for kind in map(hsw.storage.__dict__.get, hsw.storage.__all__)
    if inspect.isclass(kind) and issubclass(kind, Storage) and not inspect.isabstract(kind)
]
NUM_STEPS, NUM_ENVS = 5, 3

MINIMAL = {
    "box": {"shape": (4,)},
    "image": {"shape": (3, 36, 36)},
    "dict": {"spaces": {"vector": {"shape": (4,)}, "nested": {"spaces": {"image": {"shape": (3, 12, 12)}}}}},
}
MINIMAL_ACTIONS = {
    "discrete": {"shape": (3,), "type": "Discrete", "range": [0, 2]},
    "multi_binary": {"shape": (4,), "type": "MultiBinary", "range": [0, 1]},
    "box": {"shape": (2,), "type": "Box", "range": [-1, 1]},
    "matrix": {"shape": (2, 3), "type": "Box", "range": [-1, 1]},
}


def minimal(obs, action):
    return (
        MINIMAL.get(obs, space_config(OBS_SPACES[obs])),
        MINIMAL_ACTIONS.get(action, space_config(ACTION_SPACES[action])),
    )


FORMS = {
    "gymnasium": lambda obs, action: (OBS_SPACES[obs], ACTION_SPACES[action]),
    "config": lambda obs, action: tuple(
        OmegaConf.create(space_config(space)) for space in (OBS_SPACES[obs], ACTION_SPACES[action])
    ),
    "minimal": minimal,
    "minimal_config": lambda obs, action: tuple(map(OmegaConf.create, minimal(obs, action))),
}

actor = SimpleNamespace(value=lambda obs: torch.full((NUM_ENVS,), 7.0))


def make(kind, spaces, **kwargs):
    return kind.create_factory(NUM_STEPS, *spaces, num_envs=NUM_ENVS, **kwargs)("cpu", actor, SimpleNamespace(lr=0.1))


def rows_of(storage, obs, action, count=NUM_STEPS):
    return [transition(storage, OBS_SPACES[obs], ACTION_SPACES[action], NUM_ENVS, t) for t in range(count)]


def of_row(batched, n):
    return tree_map(lambda part: part[n], tensors(batched))


# Defects 1, 2, 6: named fields, int64 discrete actions, Box actions with all their dimensions.
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action", ACTION_SPACES)
@pytest.mark.parametrize("obs", OBS_SPACES)
@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_what_goes_in_row_by_row_comes_out_in_batches_under_its_name(kind, obs, action, form):
    storage = make(kind, FORMS[form](obs, action))
    rows = rows_of(storage, obs, action)
    storage.init_tensors(rows[0])
    storage.insert_transition(rows[0])
    for row in rows[1:]:
        storage.add(**row)
    storage.before_gradients(actor, storage.algorithm)
    seen = []
    for batch in storage.generate_batches(4, None):
        for b, name in enumerate(batch.log_probs.int().tolist()):
            t, n = divmod(name, 100)
            seen.append((t, n))
            assert equal(tree_map(lambda part, b=b: part[b], batch.obs), of_row(rows[t]["obs"], n))
            assert equal(batch.actions[b], of_row(rows[t]["actions"], n))
            assert [float(getattr(batch, extra)[b]) - name for extra in storage.extras()] == [0, 0.25, 0.5][
                : len(storage.extras())
            ]
            assert float(batch.returns[b]) == pytest.approx(float(batch.advantages[b] + batch.values[b]))
    assert sorted(seen) == [(t, n) for t in range(NUM_STEPS) for n in range(NUM_ENVS)]
    info = {"loss": 1.0}
    assert storage.after_gradients(actor, storage.algorithm, info) == info


@pytest.mark.parametrize("action", ACTION_SPACES)
@pytest.mark.parametrize("obs", OBS_SPACES)
@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("count", [0, 2, NUM_STEPS])
def test_another_storage_continues_with_what_one_hands_over(kind, obs, action, count):
    spaces = OBS_SPACES[obs], ACTION_SPACES[action]
    one, by_slice, by_state = make(kind, spaces), make(kind, spaces), make(kind, spaces)
    rows = rows_of(one, obs, action)
    one.seed(5)
    for row in rows[:count]:
        one.add(**row)
    if count:
        by_slice.add(**rows[-1])  # is replaced
    by_slice.insert_data_slice(one.get_all_buffer_data(data_to_cpu=True))
    by_state.load_state_dict(one.state_dict())
    assert equal(by_slice.get_all_buffer_data(), one.get_all_buffer_data())
    assert equal(by_state.state_dict(), one.state_dict())
    batches = []
    for storage in (one, by_state):
        for row in rows[count:]:
            storage.add(**row)
        storage.before_gradients(actor, None)
        batches.append([vars(batch) for batch in storage.generate_batches(2, None, 2)])
    assert equal(*batches)


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_buffer_data_is_a_copy(kind):
    storage = make(kind, (OBS_SPACES["dict"], ACTION_SPACES["box"]))
    storage.add(**rows_of(storage, "dict", "box")[0])
    before = storage.get_all_buffer_data()
    storage.get_all_buffer_data()["actions"].zero_()
    storage.get_all_buffer_data()["obs"]["vector"].zero_()
    assert equal(storage.get_all_buffer_data(), before)


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_factory_takes_positional_and_named_arguments_alike(kind):
    spaces = OBS_SPACES["box"], ACTION_SPACES["box"]
    named = kind.create_factory(
        size=NUM_STEPS, observation_space=spaces[0], action_space=spaces[1], num_envs=NUM_ENVS, discount=0.5
    )
    positional = kind.create_factory(NUM_STEPS, *spaces, NUM_ENVS, 0.5)
    for factory in (named, positional):
        storage = factory("cpu", actor, "algorithm")
        assert type(storage) is kind
        assert (storage.size, storage.num_envs, storage.discount) == (NUM_STEPS, NUM_ENVS, 0.5)
        assert (storage.actor, storage.algorithm) == (actor, "algorithm")
    assert named("cpu", actor, None) is not named("cpu", actor, None)


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_parameters_of_storage_and_algorithm_are_set_and_unknown_ones_refused(kind):
    storage = make(kind, (OBS_SPACES["box"], ACTION_SPACES["box"]))
    storage.update_storage_parameter("discount", 0.5)
    storage.update_storage_parameter("lr", 0.2)
    assert (storage.discount, storage.algorithm.lr) == (0.5, 0.2)
    for unknown in ("gama", "_rows"):
        with pytest.raises(AttributeError, match=unknown):
            storage.update_storage_parameter(unknown, 1)


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_reset_forgets_what_is_stored(kind):
    storage = make(kind, (OBS_SPACES["box"], ACTION_SPACES["box"]))
    for row in rows_of(storage, "box", "box"):
        storage.add(**row)
    storage.reset()
    assert len(storage.get_all_buffer_data()["rewards"]) == 0
    storage.add(**rows_of(storage, "box", "box")[0])
    assert len(storage.get_all_buffer_data()["rewards"]) == 1


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_the_order_of_batches_comes_from_the_storages_own_generator(kind):
    def order(seed):
        storage = make(kind, (OBS_SPACES["box"], ACTION_SPACES["box"]))
        storage.seed(seed)
        for row in rows_of(storage, "box", "box"):
            storage.add(**row)
        storage.before_gradients(actor, None)
        torch.rand(3)
        return torch.cat([batch.log_probs for batch in storage.generate_batches(2, None, 3)]).tolist()

    first = order(1)
    state = torch.get_rng_state()
    torch.rand(3)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    assert order(1) == first != order(2)
    torch.set_rng_state(state)
    order(1)
    assert torch.equal(torch.get_rng_state(), after)
