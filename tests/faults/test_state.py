"""A state that was changed and signed again: held against its template before anything is made of it."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hsw.algorithm.flat import optimizer_template
from hsw.append_log import AppendLog, Piece
from hsw.errors import CorruptError
from hsw.run.checkpoint import signed
from hsw.storage import ReplayStorage
from hsw.template import (
    AllOrNone,
    Array,
    Axis,
    Each,
    Exactly,
    Fields,
    Flag,
    Maybe,
    Named,
    Number,
    Rows,
    StateError,
    Whole,
    hold,
    template_of,
)
from tests.runs import agent_of, call, newest, run_dir, tiny, tiny_run

RECIPES = ("ppo", "daac", "sac", "her_sac", "impala")
Change = tuple[str, Callable[[Any], Any]]


@pytest.fixture(scope="module", params=RECIPES)
def trained(request: Any, tmp_path_factory: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An agent that has just been built, and a state that a run of its config saved."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    changes = ("env.normalize_obs=true", "env.normalize_reward=true") if request.param == "ppo" else ()
    arguments = (*tiny_run(request.param), *changes, "num_train_steps=64")
    done = call(*arguments, run_dir(folder))
    assert done.code == 0, done.err
    with agent_of(*arguments[len(tiny(request.param)) - 1 :]) as agent:
        agent.services.restored_older = False  # as when it loads a checkpoint of this version
        yield agent, newest(folder)


def leaves(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place of a state, containers before what is in them."""
    yield path, state
    if isinstance(state, dict | list):
        for key in list(state) if isinstance(state, dict) else range(min(len(state), 3)):
            yield from leaves(state[key], (*path, key))


def changes_of(value: Any) -> Iterator[Change]:
    """What may be wrong with one place of a state: kind, key, count, shape, dtype, a number that is none."""
    if isinstance(value, torch.Tensor):
        other = torch.float64 if value.dtype == torch.float32 else torch.float32
        yield "dtype", lambda tensor: tensor.to(other)
        yield "one more axis", lambda tensor: tensor[None]
        yield "no tensor", lambda tensor: tensor.reshape(-1)[:3].tolist()
        if value.ndim:
            yield "no axis", lambda tensor: torch.zeros((), dtype=tensor.dtype)
            yield "one more", lambda tensor: torch.cat([tensor, tensor[..., -1:]], -1)
            yield "none", lambda tensor: tensor[..., :0]
        if value.is_floating_point() and value.numel():
            yield "NaN", lambda tensor: torch.full_like(tensor, math.nan)
            yield "infinite", lambda tensor: torch.full_like(tensor, math.inf)
    elif isinstance(value, dict):
        yield "a list", lambda mapping: list(mapping)
        yield "another key", lambda mapping: {**mapping, "evil": 1}
    elif isinstance(value, bool | int | float | str):
        yield "a mapping", lambda value: {}
        yield "a list", lambda value: [value]
        yield "text", lambda value: "evil"
        if not isinstance(value, str):
            yield "NaN", lambda value: math.nan
    elif isinstance(value, AppendLog):
        yield "no rows", lambda log: []
        yield "another column", lambda log: AppendLog([*log.begin, 0], [*log.end, 0], log.read)
        yield "one row more", lambda log: AppendLog(log.begin, [end + 10**6 for end in log.end], log.read)


def put(state: dict[str, Any], path: tuple[Any, ...], change: Callable[[Any], Any]) -> dict[str, Any]:
    changed = copy.copy(state)
    if not path:
        return change(changed)
    inner: Any = changed
    for key in path[:-1]:
        inner[key] = copy.copy(inner[key])
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return changed


def other_rows(log: AppendLog, name: str, value: Any, dtype: np.dtype) -> AppendLog:
    """The same rows, the last of which has another value in a field."""

    def read(begin: Any, end: Any) -> Iterator[Piece]:
        pieces = list(log.read(begin, end))
        rows = pieces[-1].rows.clone()
        rows[-1].numpy().view(dtype)[name] = value
        yield from [*pieces[:-1], pieces[-1]._replace(rows=rows)]

    return AppendLog(log.begin, log.end, read)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_of_a_replay_hold_what_environments_give(value: float, trained: Any) -> None:
    agent, state = trained
    ring = state["storage"].get("ring")
    if ring is None:
        pytest.skip("this recipe has no replay")
    dtype = agent.storage.ring.memory.dtype if agent.storage.ring else ring_dtype(agent, state)
    floats = [name for name in dtype.names if dtype[name].base.kind == "f"]
    assert {"rewards", "actions"} < set(floats)
    for name in floats:
        for place in ("rows", "pending"):
            changed = copy.deepcopy({**ring, "rows": None}) | {"rows": ring["rows"]}
            if place == "rows":
                changed["rows"] = other_rows(ring["rows"], name, value, dtype)
            else:
                changed["pending"][0].numpy().view(dtype)[name] = value
            with pytest.raises(CorruptError, match=name):
                agent.load_state_dict({**state, "storage": {**state["storage"], "ring": changed}})


def ring_dtype(agent: Any, state: dict[str, Any]) -> np.dtype:
    agent.load_state_dict(state)
    return np.dtype(agent.storage.ring.memory.dtype)


@pytest.mark.parametrize(("field", "value"), [("terminateds", 2), ("kind", 3), ("kind", -1), ("pair", [1, 2])])
def test_rows_hold_flags_and_choices_of_their_spaces(field: str, value: Any) -> None:
    parts = {"kind": gym.spaces.Discrete(3), "pair": gym.spaces.MultiDiscrete([3, 2]), "x": gym.spaces.Box(-1, 1, (2,))}
    spaces = gym.spaces.Dict(parts), gym.spaces.Box(-1, 1, (2,))
    storage = ReplayStorage(*spaces, storage_size=8)
    obs = {"kind": [1], "pair": [[2, 1]], "x": np.ones((1, 2), np.float32)}
    for _ in range(3):
        storage.add(obs, np.ones((1, 2)), [1.0], [False], [False], {}, obs)
    state = storage.state_dict()
    ReplayStorage(*spaces, storage_size=8).load_state_dict(state)
    dtype = storage.ring.memory.dtype
    name = field if field in dtype.names else f"observations/{field}"
    places = {key: (np.uint8 if key == "terminateds" else kind, place) for key, (kind, place) in dtype.fields.items()}
    formats, offsets = zip(*places.values(), strict=True)
    as_bytes = np.dtype({"names": [*places], "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
    state["ring"]["rows"] = other_rows(state["ring"]["rows"], name, value, as_bytes)
    with pytest.raises(CorruptError, match=field):
        ReplayStorage(*spaces, storage_size=8).load_state_dict(state)


def test_a_choice_of_a_rollout_is_one_of_its_space(trained: Any) -> None:
    agent, state = trained
    data = state["storage"].get("data")
    if not data or not data["actions"].numel() or data["actions"].is_floating_point():
        pytest.skip("this recipe keeps no choices")
    for value in (-1, 2):
        changed = {**data, "actions": torch.full_like(data["actions"], value)}
        with pytest.raises(CorruptError, match="choice"):
            agent.load_state_dict({**state, "storage": {**state["storage"], "data": changed}})


def test_nothing_that_is_not_there_may_be_anything(trained: Any) -> None:
    """Where a state has null, another is taken only if it is of the kind that may stand there."""
    agent, state = trained
    places = [path for path, value in leaves({**state, "logger": None}) if value is None and path != ("logger",)]
    taken = []
    for path in places:
        for value in (5, [[]], {"evil": [1]}, {"evil": "x"}):
            try:
                agent.load_state_dict(put(state, path, lambda _, value=value: value))
                taken.append(("/".join(map(str, path)), str(value)))
            except CorruptError:
                pass
    assert set(taken) <= {("best_score", "5"), ("rng/python/2", "5")}  # numbers may stand there


FREE = ("algorithm/optimizers", "obs_statistics", "core", "callbacks")  # keys are names there, or told elsewhere


def test_every_place_of_a_state_is_held_against_its_template(trained: Any) -> None:
    agent, state = trained
    taken: list[str] = []
    count = 0
    for path, value in list(leaves({key: part for key, part in state.items() if key != "logger"}))[1:]:
        name = "/".join(map(str, path))
        for what, change in changes_of(value):
            if what == "another key" and name.endswith(FREE):
                continue
            if what == "a list" and isinstance(value, dict) and not value:
                continue  # [] in place of {}
            count += 1
            try:
                agent.load_state_dict(put(state, path, change))
                taken.append(f"{name}: {what}")
            except CorruptError as error:
                taken += [f"{name}: {what}: {error}"] if "\n" in str(error) else []
            except Exception as error:
                taken.append(f"{name}: {what}: {type(error).__name__}: {error}")
    assert count > 100
    assert taken == []


def test_no_key_of_a_state_may_be_missing(trained: Any) -> None:
    agent, state = trained
    taken = []
    for path, value in leaves({key: part for key, part in state.items() if key != "logger"}):
        for key in value if isinstance(value, dict) and path[-1:] != ("sums",) else ():
            if key == "success":  # which only some environments tell
                continue
            try:
                agent.load_state_dict(
                    put(state, path, lambda mapping, key=key: {k: v for k, v in mapping.items() if k != key})
                )
                taken.append("/".join(map(str, (*path, key))))
            except CorruptError:
                pass
    assert taken == []


def test_the_state_itself_is_taken(trained: Any) -> None:
    agent, state = trained
    agent.load_state_dict(state)
    assert agent.step == state["step"]


def sign_again(checkpoint: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """Change a checkpoint's tensors and values, and make its checksums right."""
    tensors = load_file(checkpoint / "tensors.safetensors")
    state = json.loads((checkpoint / "state.json").read_text())
    change(tensors, state)
    save_file(tensors, checkpoint / "tensors.safetensors")
    (checkpoint / "state.json").write_text(json.dumps(state))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(signed(manifest)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert call(*tiny_run("ppo"), "num_train_steps=64", run_dir(folder)).code == 0
    return folder


def shrink(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    tensors["/algorithm/optimizers/all/0/exp_avg_sq"] = torch.zeros(())


def swell(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    key = "/algorithm/optimizers/all/0/exp_avg"
    tensors[key] = torch.zeros(len(tensors[key]) + 1)


def misstep(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    state["step"] += 1


def read_beyond(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    state["rng"]["numpy"]["rest"][0] = 10**6


def no_copies(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    state["logger"]["copies"] = 5


def nest(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    inner: Any = []
    for _ in range(900):
        inner = [inner]
    state["episode_returns"] = inner


@pytest.mark.parametrize("change", [shrink, swell, misstep, read_beyond, no_copies, nest])
def test_a_state_that_was_signed_again_is_refused_with_a_sentence(change: Any, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for checkpoint in (run / "checkpoints").glob("0*"):
        sign_again(checkpoint, change)
    assert call(f"resume={run}", "num_train_steps=128").refused(7)


def test_an_environment_that_fails_while_it_is_restored_keeps_its_code(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = call(*tiny("ppo"), "env=cartpole", "num_train_steps=40", run_dir(run))
    assert done.code == 0, done.err
    for checkpoint in (run / "checkpoints").glob("0*"):
        sign_again(checkpoint, lambda tensors, state: tensors["/env/actions"].fill_(77))
    assert call(f"resume={run}", "num_train_steps=80").refused(3, "environment")


# -- templates ---------------------------------------------------------------------------------------------------------

GOOD = [
    (Array((Axis("rows"), 2), torch.float32), torch.zeros(5, 2)),
    (Array((), torch.int64, low=0), torch.tensor(3)),
    ({"a": Array((Axis("rows"),), torch.bool), "b": Array((Axis("rows", plus=1),), torch.bool)},
     {"a": torch.zeros(2, dtype=torch.bool), "b": torch.zeros(3, dtype=torch.bool)}),
    (Maybe(Whole()), None),
    (Maybe(Whole()), 3),
    (Each(Number()), [1, 2.5]),
    (Named(Number()), {"a": 1}),
    (Fields({"a": Flag()}, {"b": Flag()}), {"a": True}),
    (AllOrNone({"a": Flag()}), {}),
    (Exactly("PCG64"), "PCG64"),
    (Rows(1, most=3), AppendLog([4], [7], lambda begin, end: iter(()))),
    ([Whole(), Flag()], [1, False]),
]  # fmt: skip
BAD = [
    (Array((Axis("rows", most=4), 2), torch.float32), torch.zeros(5, 2)),
    (Array((), torch.int64, low=0), torch.tensor(-3)),
    ({"a": Array((Axis("rows"),), torch.bool), "b": Array((Axis("rows", plus=1),), torch.bool)},
     {"a": torch.zeros(2, dtype=torch.bool), "b": torch.zeros(2, dtype=torch.bool)}),
    (Array((Axis("rows", plus=1),), torch.bool), torch.zeros(0, dtype=torch.bool)),
    (Whole(), True),
    (Whole(), 1.0),
    (Whole(), -1),
    (Whole(high=3), 4),
    (Number(), math.nan),
    (Number(), "1"),
    (Number(), 10**400),
    (Flag(), 1),
    (Each(Number(), most=1), [1, 2]),
    (Named(Number()), {3: 1}),
    (Fields({"a": Flag()}, {"b": Flag()}), {"b": True}),
    (AllOrNone({"a": Flag(), "b": Flag()}), {"a": True}),
    (Exactly(1), True),
    (Rows(1, most=3), AppendLog([4], [8], lambda begin, end: iter(()))),
    ([Whole(), Flag()], [1]),
    ({"a": Flag()}, []),
]  # fmt: skip


@pytest.mark.parametrize(("template", "state"), GOOD)
def test_what_is_as_its_template_says_passes(template: Any, state: Any) -> None:
    hold(template, state, "state")


@pytest.mark.parametrize(("template", "state"), BAD)
def test_what_is_not_as_its_template_says_is_refused_with_its_path(template: Any, state: Any) -> None:
    with pytest.raises(StateError, match="the saved here"):
        hold(template, state, "here")


def test_an_older_state_may_lack_keys_and_no_other_may() -> None:
    hold({"a": Flag(), "b": Flag()}, {"a": True}, "state", missing=True)
    with pytest.raises(StateError, match="has no b"):
        hold({"a": Flag(), "b": Flag()}, {"a": True}, "state")


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizers_template_is_that_of_its_state_and_leaves_it_alone(make: Any) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = make([parameter], lr=0.1)
    template = optimizer_template(optimizer)
    assert not optimizer.state
    parameter.grad = torch.ones(3, 2)
    optimizer.step()
    state = optimizer.state_dict()["state"]
    hold(template, state, "optimizer")
    hold(optimizer_template(optimizer), state, "optimizer")
    assert set(template_of(state)) == set(template)
