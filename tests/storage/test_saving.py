"""Replays in checkpoints: what comes back continues exactly, and what was written once is not written again."""

import json
import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsw.errors import ConfigError, CorruptError, ResourceError
from hsw.run.checkpoint import load_newest, read_state, save_checkpoint, write_state
from hsw.storage import HerReplayStorage, ReplayStorage, ring
from tests.helpers import equal
from tests.storage.naive import ACTION, GOALS, Driver, NaiveHer, NaiveReplay, examples, layouts

pytestmark = pytest.mark.filterwarnings("ignore:an episode is longer")


def reward_of(achieved, desired, info):
    return -np.abs(achieved - desired).sum(-1)


def storage_of(kind, capacity=6, num_envs=2, **kwargs):
    if kind is HerReplayStorage:
        kwargs["reward_fn"] = reward_of
    return kind(GOALS, ACTION, "cpu", capacity * num_envs, num_envs, 16, **kwargs)


def driver(kind=ReplayStorage, capacity=6, num_envs=2, reset_rows=False):
    naive = NaiveHer if kind is HerReplayStorage else NaiveReplay
    return Driver(storage_of(kind, capacity, num_envs), naive(num_envs, capacity), reset_rows, goals=True)


def save(folder, storage, previous=None, **kwargs):
    return save_checkpoint(folder, {"storage": storage.state_dict()}, {}, previous=previous, **kwargs)


def loaded(folder, like):
    """Another storage, with the newest checkpoint's contents."""
    other = storage_of(type(like), like.capacity, like.num_envs)
    other.load_state_dict(load_newest(folder).state["storage"])
    return other


def files(folder):
    """Bytes of each file of rows."""
    rows = folder / "rows"
    return {path.name: path.stat().st_size for path in rows.iterdir()} if rows.is_dir() else {}


def same(one, other):
    """Whether two storages hold and draw the same, now."""
    data = equal(one.get_all_buffer_data(), other.get_all_buffer_data())
    return data and (not len(one) or equal(*[[vars(s.sample(0)) for _ in range(3)] for s in (one, other)]))


kinds = pytest.mark.parametrize("kind", [ReplayStorage, HerReplayStorage])
KINDS = st.sampled_from([ReplayStorage, HerReplayStorage])
ACTS = st.sampled_from(["go"] * 6 + ["save", "save", "load", "truncate", "reset", "slice"])


# -- continuing -------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("num_rows", [0, 1, 2, 5, 6, 7, 8, 13, 14, 15, 40])
@pytest.mark.parametrize("after", ["nothing", "truncate", "reset"])
def test_a_state_read_back_continues_exactly(tmp_path, kind, num_rows, after):
    drive = driver(kind, reset_rows=True)
    drive.rows(["..", "t.", "..", ".T", "b.", "..", "T."] * 6)
    drive.reset()
    drive.rows((["..", "..", ".t", "..", "T."] * 8)[:num_rows])
    if after != "nothing":
        getattr(drive, after)()
    write_state(tmp_path / "1", drive.storage.state_dict(), {})
    one, other = drive.storage, storage_of(kind)
    other.load_state_dict(read_state(tmp_path / "1")[0])
    assert same(one, other)
    for events in ["..", ".t", "T."] * 8:
        row = drive.row(events)
        other.add(**row, valid=one._valid)
        assert same(one, other)


@examples(25)
@given(KINDS, layouts(30, 2), st.integers(1, 7), st.lists(ACTS, min_size=30, max_size=30), st.booleans())
def test_checkpoints_at_any_moments_continue_exactly(kind, layout, capacity, acts, small_pieces):
    """Saved on top of one another, loaded back, cut, reset and replaced in any order."""
    import tempfile
    from pathlib import Path

    num_envs, rows = layout
    drive = driver(kind, capacity, num_envs)
    previous, before = None, ring._PIECE_BYTES
    ring._PIECE_BYTES = 200 if small_pieces else before
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for events, act in zip(rows, acts, strict=False):
                drive.row(events)
                if act in ("truncate", "reset"):
                    getattr(drive, act)()
                elif act == "slice":
                    drive.storage.insert_data_slice(drive.storage.get_all_buffer_data())
                    drive.naive.limits = [capacity] * num_envs  # they are no part of the data
                elif act != "go":
                    previous = save(folder, drive.storage, previous)
                    other = loaded(folder, drive.storage)
                    assert same(drive.storage, other)
                    assert equal(other.state_dict(), drive.storage.state_dict())
                    if act == "load":
                        drive.storage = other
            save(folder, drive.storage, previous)
            assert same(drive.storage, loaded(folder, drive.storage))
            standing = drive.naive.standing()
            assert len(drive.storage) == len(standing)
    finally:
        ring._PIECE_BYTES = before


@pytest.mark.parametrize("num_rows", [15, 16, 17, 18, 19, 33])
def test_the_parts_of_an_episode_without_end_go_on_as_they_would_have(num_rows):
    drive, other = driver(HerReplayStorage, 16, 1).rows(["."] * num_rows), storage_of(HerReplayStorage, 16, 1)
    other.load_state_dict(drive.storage.state_dict())
    for _ in range(20):
        other.add(**drive.row("."))
        assert same(drive.storage, other)


@kinds
def test_a_used_storage_takes_a_state_over(kind):
    drive, used = driver(kind).rows(["..", ".t"] * 3), driver(kind).rows(["T.", ".."] * 9).storage
    used.load_state_dict(drive.storage.state_dict())
    assert same(used, drive.storage)
    used.load_state_dict(storage_of(kind).state_dict())
    assert len(used) == 0


@kinds
@pytest.mark.parametrize(("capacity", "num_envs"), [(5, 2), (7, 2), (6, 1), (6, 3), (3, 4)])
def test_a_state_of_another_size_is_refused_by_new_storages_and_by_used_ones(kind, capacity, num_envs):
    state = driver(kind).rows(["..", ".t"] * 5).storage.state_dict()
    for rows in ([], ["." * num_envs] * 3):
        other = driver(kind, capacity, num_envs).rows(rows).storage
        with pytest.raises(ConfigError, match="layout"):
            other.load_state_dict(state)


@kinds
@pytest.mark.parametrize("key", ["observation", "achieved_goal"])
def test_a_state_of_other_spaces_is_refused(kind, key):
    from gymnasium.spaces import Box, Dict

    state = driver(kind).rows(["..", ".t"] * 5).storage.state_dict()
    shape = {"observation": (3,), "achieved_goal": (2,)}[key]
    space = Dict({**GOALS.spaces, key: Box(-1, 1, shape, np.float64)})
    with pytest.raises(ConfigError, match="layout"):
        kind(space, ACTION, "cpu", 12, 2).load_state_dict(state)


def test_kept_infos_come_back_and_a_storage_that_keeps_none_refuses_them():
    row = {**driver().row(".t"), "info": {"x": np.array([1, 2]), "v": np.ones((2, 3), np.float32)}}
    one, other = (storage_of(HerReplayStorage, copy_info_dict=True) for _ in range(2))
    one.add(**row)
    other.load_state_dict(one.state_dict())
    assert same(one, other)
    assert other.get_all_buffer_data()["info/x"][:2].tolist() == [1, 0]
    by_slice = storage_of(HerReplayStorage, copy_info_dict=True)
    by_slice.insert_data_slice(one.get_all_buffer_data())
    assert equal(by_slice.get_all_buffer_data(), one.get_all_buffer_data())
    with pytest.raises(ConfigError, match="layout"):
        storage_of(HerReplayStorage).load_state_dict(one.state_dict())


# -- writing rows once ------------------------------------------------------------------------------------------------


@kinds
def test_a_checkpoint_writes_the_new_rows_only_and_overwritten_ones_are_deleted(tmp_path, kind):
    drive, previous, sizes = driver(kind, 40), None, []
    row_bytes, known = None, {}
    for _ in range(12):
        previous = save(tmp_path, drive.rows(["..", "..", "..", "tt"] * 2).storage, previous)
        new = {name: size for name, size in files(tmp_path).items() if name not in known}
        known |= new
        sizes.append(list(new.values()))
        row_bytes = drive.storage.ring.memory.itemsize
        # 8 transitions and 2 last observations of 2 envs, and a header
        assert len(sizes[-1]) == 1
        assert 20 * row_bytes <= sizes[-1][0] < 20 * row_bytes + 200
        # 41 places of each env lie in at most 5 and a bit of such files, and one more for the checkpoint before.
        assert len(files(tmp_path)) <= 7
    assert len(known) == 12
    assert same(drive.storage, loaded(tmp_path, drive.storage))


def test_nothing_new_writes_nothing(tmp_path):
    drive = driver().rows(["..", ".t"])
    first = save(tmp_path, drive.storage)
    before = files(tmp_path)
    save(tmp_path, drive.storage, first)
    assert files(tmp_path) == before
    assert same(drive.storage, loaded(tmp_path, drive.storage))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_checkpoints_as_are_kept_can_be_loaded_and_no_other_rows_lie_about(tmp_path, keep):
    drive, previous, contents = driver(), None, []
    for _ in range(6):
        previous = save(tmp_path, drive.rows(["..", "T."]).storage, previous, keep=keep)
        contents.append(drive.storage.get_all_buffer_data())
    kept = sorted(path for path in tmp_path.iterdir() if path.name != "rows")
    assert [path.name for path in kept] == [f"{number:06d}" for number in range(7 - keep, 7)]
    used = set()
    for path, content in zip(kept, contents[-keep:], strict=True):
        other = storage_of(ReplayStorage)
        other.load_state_dict(read_state(path)[0]["storage"])
        assert equal(other.get_all_buffer_data(), content)
        used |= {
            entry["sha256"] for entry in json.loads((path / "manifest.json").read_text())["rows"]["/storage/ring/rows"]
        }
    assert used == set(files(tmp_path))


@pytest.mark.parametrize("how", ["reset", "slice"])
def test_after_all_rows_were_replaced_none_of_the_old_ones_stays(tmp_path, how):
    drive = driver().rows(["..", ".t"] * 4)
    previous = save(tmp_path, drive.storage, keep=1)
    before = set(files(tmp_path))
    if how == "reset":
        drive.reset()
    else:
        drive.storage.insert_data_slice(driver().rows(["T.", ".."]).storage.get_all_buffer_data())
    previous = save(tmp_path, drive.storage, previous, keep=1)
    assert not before & set(files(tmp_path))
    assert same(drive.storage, loaded(tmp_path, drive.storage))
    drive.row("..")
    save(tmp_path, drive.storage, previous)
    assert same(drive.storage, loaded(tmp_path, drive.storage))


def test_a_resumed_run_writes_only_what_is_new_since(tmp_path):
    drive = driver(capacity=30).rows(["..", ".t"] * 4)
    save(tmp_path, drive.storage)
    before = files(tmp_path)
    found = load_newest(tmp_path)
    drive.storage = storage_of(ReplayStorage, 30)
    drive.storage.load_state_dict(found.state["storage"])
    drive.row("..")
    save(tmp_path, drive.storage, found.path)
    new = files(tmp_path).keys() - before.keys()
    assert before.keys() < files(tmp_path).keys()
    assert [files(tmp_path)[name] < 5 * drive.storage.ring.memory.itemsize + 200 for name in new] == [True]


# -- damage -----------------------------------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    os.truncate(path, 30)


def pickled(path):
    path.write_bytes(b"\x80\x04.")


def gone(path):
    path.unlink()


DAMAGES = pytest.mark.parametrize("damage", [flip, cut, pickled, gone])


@DAMAGES
def test_damaged_rows_of_the_newest_checkpoint_are_said_and_the_one_before_is_used(tmp_path, damage):
    drive = driver().rows(["..", ".t"] * 2)
    previous = save(tmp_path, drive.storage)
    content, old = drive.storage.get_all_buffer_data(), set(files(tmp_path))
    save(tmp_path, drive.row("..") and drive.storage, previous)
    (new,) = set(files(tmp_path)) - old
    damage(tmp_path / "rows" / new)
    found = load_newest(tmp_path)
    assert (found.path.name, len(found.complaints)) == ("000001", 1)
    assert "000002" in found.complaints[0]
    assert new in found.complaints[0]
    other = storage_of(ReplayStorage)
    other.load_state_dict(found.state["storage"])
    assert equal(other.get_all_buffer_data(), content)
    # What follows is saved on top of the one that was used.
    other.add(**drive.row(".."))
    save(tmp_path, other, found.path)
    assert same(other, loaded(tmp_path, other))


@DAMAGES
def test_rows_that_all_checkpoints_share_make_all_of_them_corrupt(tmp_path, damage):
    drive = driver().rows([".."])
    save(tmp_path, drive.row("..") and drive.storage, save(tmp_path, drive.storage))
    for name in files(tmp_path):
        damage(tmp_path / "rows" / name)
    with pytest.raises(CorruptError, match=r"000002.*000001"):
        load_newest(tmp_path)
    assert load_newest(tmp_path, rows=False).complaints == []


def test_if_somebody_deleted_rows_the_next_checkpoint_has_all_of_them(tmp_path):
    drive = driver(capacity=30).rows(["..", ".t"] * 4)
    previous = save(tmp_path, drive.storage)
    previous = save(tmp_path, drive.row("..") and drive.storage, previous)
    next((tmp_path / "rows").iterdir()).unlink()
    save(tmp_path, drive.row("..") and drive.storage, previous)
    assert same(drive.storage, loaded(tmp_path, drive.storage))


@pytest.mark.parametrize("folder", ["rows", "all"])
def test_if_somebody_deleted_the_folder_the_next_checkpoint_is_whole(tmp_path, folder):
    import shutil

    drive = driver().rows(["..", ".t"])
    previous = save(tmp_path / "checkpoints", drive.storage)
    shutil.rmtree(tmp_path / "checkpoints" / "rows" if folder == "rows" else tmp_path / "checkpoints")
    save(tmp_path / "checkpoints", drive.row("..") and drive.storage, previous)
    assert same(drive.storage, loaded(tmp_path / "checkpoints", drive.storage))


@pytest.mark.parametrize(("call", "count"), [("fsync", n) for n in range(6)] + [("rename", 0), ("rename", 1)])
def test_a_full_disk_leaves_earlier_checkpoints_and_no_litter(tmp_path, monkeypatch, call, count):
    drive = driver().rows(["..", ".t"])
    previous = save(tmp_path, drive.storage)
    before = sorted(tmp_path.rglob("*"))
    content, real, calls = drive.storage.get_all_buffer_data(), getattr(os, call), iter(range(99))

    def full(*args, **options):
        if next(calls) >= count:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(ResourceError, match="No space left on device"):
            save(tmp_path, drive.row("..") and drive.storage, previous)
    assert sorted(tmp_path.rglob("*")) == before
    other = loaded(tmp_path, drive.storage)
    assert equal(other.get_all_buffer_data(), content)
    save(tmp_path, drive.storage, previous)
    assert same(drive.storage, loaded(tmp_path, drive.storage))


def test_saving_and_drawing_leave_the_contents_alone(tmp_path):
    drive = driver(HerReplayStorage).rows(["..", ".t"] * 5)
    before, state = drive.storage.get_all_buffer_data(), torch.get_rng_state()
    save(tmp_path, drive.storage)
    with warnings.catch_warnings():
        drive.storage.sample(0)
    assert equal(drive.storage.get_all_buffer_data(), before)
    assert torch.equal(torch.get_rng_state(), state)
