from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hsw.errors import CorruptError, ResourceError
from hsw.run import checkpoint
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
    state, meta, complaints = checkpoint.load_newest(tmp_path)
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
    state, _, complaints = checkpoint.load_newest(tmp_path)
    assert state["step"] == 1
    assert len(complaints) == 1
    assert "000002" in complaints[0]
    damage(tmp_path / "000001")
    with pytest.raises(CorruptError, match=r"000002.*000001"):
        checkpoint.load_newest(tmp_path)


def test_a_later_format_is_refused_and_never_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps({**manifest, "format": checkpoint.FORMAT + 1}))
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
        (folder / "manifest.json").write_text(json.dumps(manifest))
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


def test_not_finite_numbers_are_found_anywhere() -> None:
    assert checkpoint.all_finite(STATE["weights"])
    assert not checkpoint.all_finite({"a": {"b": torch.tensor([1.0, float("nan")])}})
    assert not checkpoint.all_finite({"a": [torch.tensor(float("inf"))]})
