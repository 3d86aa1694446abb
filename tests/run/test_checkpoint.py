from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hsw.append_log import AppendLog, Piece
from hsw.directory import Directory
from hsw.errors import CorruptError, ResourceError
from hsw.run import checkpoint
from tests.helpers import columns
from tests.runs import differences

STATE = {
    "step": 3,
    "none": None,
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False])},
    "optimizer": {0: {"step": torch.tensor(2.0)}, 1: {"m": torch.ones(2, dtype=torch.float64)}},
    "list": [1, 2.5, "word", torch.zeros(0), [torch.tensor(7)]],
    "big": 2**63 + 11,
    "inf": float("inf"),
}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save_checkpoint(folder, {**STATE, "step": step}, {"step": step}, keep)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, 3)
    state, meta, complaints, _ = checkpoint.load_newest(tmp_path)
    assert differences(state, STATE) == []
    assert (meta, complaints) == ({"step": 3}, [])


def test_views_of_one_memory_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    checkpoint.write_state(tmp_path / "s", {"a": base, "b": base[1:], "c": base.T}, {})
    state, _ = checkpoint.read_state(tmp_path / "s")
    assert differences(state, {"a": base, "b": base[1:], "c": base.T.contiguous()}) == []


def test_the_newest_are_kept_and_numbered_on(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step)
    assert checkpoint.list_checkpoints(tmp_path) == [3, 4]
    assert checkpoint.load_newest(tmp_path)[0]["step"] == 4


def test_half_written_folders_are_no_checkpoints_and_are_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".writing-000002-77").mkdir()
    (tmp_path / "notes").mkdir()
    assert checkpoint.list_checkpoints(tmp_path) == [1]
    checkpoint.sweep_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "notes"]


def damage_bit(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_truncate(folder: Path) -> None:
    with (folder / "tensors.safetensors").open("r+b") as file:
        file.truncate(20)


def damage_state(folder: Path) -> None:
    (folder / "state.json").write_text('{"step": 99}')


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def damage_missing(folder: Path) -> None:
    (folder / "state.json").unlink()


def damage_binary(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")


DAMAGES = [damage_bit, damage_truncate, damage_state, damage_manifest, damage_missing, damage_binary]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, damage: Any) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    state, _, complaints, path = checkpoint.load_newest(tmp_path)
    assert (state["step"], path.name) == (1, "000001")
    assert len(complaints) == 1
    assert "000002" in complaints[0]
    damage(tmp_path / "000001")
    with pytest.raises(CorruptError, match=r"000002.*000001"):
        checkpoint.load_newest(tmp_path)


def test_checkpoints_from_before_there_were_rows_are_read(tmp_path: Path) -> None:
    path = save(tmp_path, 1) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["rows"], manifest["checksum"]
    manifest["format"] = 1
    path.write_text(json.dumps(manifest))
    assert checkpoint.load_newest(tmp_path)[0]["step"] == 1
    save(tmp_path, 2)


def test_a_later_format_is_said_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps({**manifest, "format": checkpoint.FORMAT + 1}))
    found = checkpoint.load_newest(tmp_path)
    assert found.state["step"] == 1
    assert [sentence for sentence in found.complaints if "update hsw" in sentence and "000002" in sentence]
    (tmp_path / "000001" / "state.json").unlink()
    with pytest.raises(CorruptError, match="update hsw"):
        checkpoint.load_newest(tmp_path)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("kind", ["pickle", "zip"])
@pytest.mark.parametrize("honest", [False, True])
def test_a_pickle_in_place_of_tensors_is_refused_and_not_run(
    tmp_path: Path, kind: str, honest: bool, monkeypatch: Any
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    folder = save(tmp_path / "checkpoints", 1)
    path = folder / "tensors.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:  # the form of torch.save
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    if honest:  # with the checksum of the file that was put there
        import hashlib

        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["sha256"]["tensors.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(checkpoint.signed(manifest)))
    with pytest.raises(CorruptError):
        checkpoint.load_newest(tmp_path / "checkpoints")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, call: str, monkeypatch: Any) -> None:
    save(tmp_path, 1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(ResourceError, match="No space left on device"):
            save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    assert checkpoint.load_newest(tmp_path)[0]["step"] == 1


# -- rows that are written once (with real replays: tests/storage/test_saving.py) --------------------------------------


def log_of(begin: list[int], end: list[int], per_piece: int = 1000) -> AppendLog:
    """Columns in which row k of column n is [n, k]; others than those that count cannot be read."""

    def read(first: Any, last: Any) -> Any:
        assert all(b <= f <= u <= e for b, f, u, e in zip(begin, first, last, end, strict=True))
        while list(first) != list(last):
            until = [min(f + per_piece, e) for f, e in zip(first, last, strict=True)]
            rows = [[n, k] for n, (f, u) in enumerate(zip(first, until, strict=True)) for k in range(f, u)]
            yield Piece(first, until, torch.tensor(rows, dtype=torch.uint8).reshape(-1, 2))
            first = until

    return AppendLog(begin, end, read)


def row_files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "rows").iterdir()} if (folder / "rows").is_dir() else set()


def assert_rows(log: AppendLog, begin: list[int], end: list[int]) -> None:
    assert (log.begin, log.end) == (begin, end)
    for n, rows in enumerate(columns(log)):
        assert rows.tolist() == [[n, k] for k in range(begin[n], end[n])]


@pytest.mark.parametrize("per_piece", [1, 3, 1000])
def test_rows_of_columns_that_move_at_their_own_pace_come_back(tmp_path: Path, per_piece: int) -> None:
    spans = [
        ([0, 0], [0, 5]),
        ([0, 0], [2, 5]),
        ([1, 4], [3, 6]),
        ([5, 4], [9, 9]),
        ([9, 4], [9, 12]),
        ([9, 12], [9, 12]),
    ]
    previous = None
    for begin, end in spans:
        state = {"a": {"b": [log_of(begin, end, per_piece), 3]}}
        previous = checkpoint.save_checkpoint(tmp_path, state, {}, previous=previous)
        log, three = checkpoint.load_newest(tmp_path).state["a"]["b"]
        assert_rows(log, begin, end)
        assert three == 3
    checkpoint.save_checkpoint(tmp_path, {"a": {"b": [log_of([9, 12], [9, 12]), 3]}}, {}, previous=previous)
    assert row_files(tmp_path) == set()


def test_two_logs_may_hold_the_same_rows(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [4]), "b": log_of([0], [4])}, {}, keep=1)
    assert len(row_files(tmp_path)) == 1
    state = {"a": log_of([4], [6]), "b": log_of([1], [4])}
    checkpoint.save_checkpoint(tmp_path, state, {}, keep=1, previous=path)
    loaded = checkpoint.load_newest(tmp_path).state
    assert_rows(loaded["a"], [4], [6])
    assert_rows(loaded["b"], [1], [4])


def test_rows_may_go_unread(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [4]), "step": 5}, {})
    for name in row_files(tmp_path):
        (tmp_path / "rows" / name).unlink()
    assert checkpoint.load_newest(tmp_path, rows=False).state["step"] == 5
    with pytest.raises(CorruptError, match="rows"):
        checkpoint.load_newest(tmp_path)


def test_rows_of_a_killed_process_are_swept_and_those_in_use_are_not(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [4])}, {})
    kept = row_files(tmp_path)
    for name in ("0" * 64, "." + "1" * 64):
        (tmp_path / "rows" / name).write_bytes(b"half")
    checkpoint.sweep_unfinished(tmp_path)
    assert row_files(tmp_path) == kept


@pytest.mark.parametrize("damage", [damage_manifest, damage_binary])
def test_rows_are_all_written_again_if_the_previous_checkpoint_is_damaged(tmp_path: Path, damage: Any) -> None:
    previous = checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [4])}, {})
    damage(previous)
    checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [6])}, {}, previous=previous)
    assert_rows(checkpoint.load_newest(tmp_path).state["a"], [0], [6])


def test_a_manifest_that_cannot_be_read_now_costs_nobody_his_rows(tmp_path: Path, monkeypatch: Any) -> None:
    first = checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [4])}, {})
    read = Directory.read

    def failing(self: Directory, name: str, limit: int | None = None) -> bytes:
        if self.path.name == "000001":
            raise OSError(24, "Too many open files")
        return read(self, name, limit)

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "read", failing)
        second = checkpoint.save_checkpoint(tmp_path, {"a": log_of([4], [6])}, {}, previous=first)
        checkpoint.sweep_unfinished(tmp_path)
    assert_rows(checkpoint.read_state(first)[0]["a"], [0], [4])
    assert_rows(checkpoint.read_state(second)[0]["a"], [4], [6])


def test_old_rows_that_cannot_be_deleted_fail_no_checkpoint(tmp_path: Path, monkeypatch: Any) -> None:
    first = checkpoint.save_checkpoint(tmp_path, {"a": log_of([0], [4])}, {}, keep=1)

    remove = Directory.remove

    def refused(self: Directory, name: str) -> None:
        if self.path.name != "rows":
            return remove(self, name)
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "remove", refused)
        checkpoint.save_checkpoint(tmp_path, {"a": log_of([4], [6])}, {}, keep=1, previous=first)
    assert len(row_files(tmp_path)) == 2
    checkpoint.sweep_unfinished(tmp_path)
    assert len(row_files(tmp_path)) == 1


def test_rows_cannot_come_from_outside_the_folder(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path / "c", {"a": log_of([0], [4])}, {}) / "manifest.json"
    (name,) = row_files(tmp_path / "c")
    os.rename(tmp_path / "c" / "rows" / name, tmp_path / "elsewhere")
    path.write_text(path.read_text().replace(name, "../../elsewhere"))
    with pytest.raises(CorruptError):
        checkpoint.load_newest(tmp_path / "c")


def test_not_finite_numbers_are_found_anywhere() -> None:
    assert checkpoint.all_finite(STATE["weights"])
    assert not checkpoint.all_finite({"a": {"b": torch.tensor([1.0, float("nan")])}})
    assert not checkpoint.all_finite({"a": [torch.tensor(float("inf"))]})
