"""Checkpoints of several ranks, in one process: each rank is a thread, and they share a store and a folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsw.append_log import AppendLog, Piece
from hsw.errors import CorruptError, ResourceError
from hsw.ranks import Ranks
from hsw.run import checkpoint, state_files
from hsw.run.checkpoint import list_checkpoints, load_newest, read_state, signed
from hsw.run.rank_parts import RankParts
from tests.run.test_rank_watch import Shared
from tests.runs import differences


def together(folder: Path, work: Callable[[RankParts], Any], size: int = 2) -> list[Any]:
    """What each rank makes of work; the error, if it raises one."""
    store, results = Shared(), [None] * size

    def run(rank: int) -> None:
        ranks = Ranks(rank, size, rank, store, 60.0)
        try:
            results[rank] = work(RankParts(ranks, folder))
        except Exception as error:
            results[rank] = error  # type: ignore[call-overload]
        finally:
            ranks.stop()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def log_of(rank: int, begin: int, end: int) -> AppendLog:
    def read(low: Any, high: Any) -> Any:
        numbers = torch.arange(low[0], high[0], dtype=torch.uint8)
        yield Piece(low, high, numbers[:, None] + 100 * rank)

    return AppendLog([begin], [end], read)


def state_of(rank: int, step: int = 1) -> dict[str, Any]:
    alike = {"policy": {"w": torch.arange(3.0) + step}, "algorithm": {"m": torch.ones(2) * step}}
    return {**alike, "step": step, "env": {"obs": torch.full((2,), float(rank))}, "storage": log_of(rank, 0, 4 * step)}


def save(step: int, previous: Path | None = None) -> Callable[[RankParts], Path]:
    return lambda parts: parts.save(lambda: state_of(parts.ranks.rank, step), {"step": step}, 2, previous)


def test_every_rank_gets_its_own_part_back_and_what_all_have_alike(tmp_path: Path) -> None:
    first, second = together(tmp_path, save(1))
    assert first == second == tmp_path / "000001"
    together(tmp_path, save(2, first))
    loaded = together(tmp_path, RankParts.load)
    for rank, (state, meta, complaints, path) in enumerate(loaded):
        assert differences(state, state_of(rank, 2)) == []
        assert (meta, complaints, path) == ({"step": 2}, [], tmp_path / "000002")
    assert differences(load_newest(tmp_path).state, state_of(0, 2)) == []  # one process reads the first one's
    kept = {entry["sha256"] for rows in json_of(tmp_path / "000002")["rows"].values() for entry in rows}
    assert {path.name for path in (tmp_path / "rows").iterdir()} == kept
    assert len(kept) == 4  # of each rank what was new at each checkpoint


def json_of(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "manifest.json").read_text()))


def test_ranks_with_equal_rows_write_them_at_once(tmp_path: Path) -> None:
    def work(parts: RankParts) -> Path:
        return parts.save(lambda: {**state_of(0), "storage": log_of(0, 0, 200)}, {"step": 1}, 2, None)

    results = together(tmp_path, work, size=4)
    assert results == [tmp_path / "000001"] * 4
    assert all(differences(loaded.state, {**state_of(0), "storage": log_of(0, 0, 200)}) == [] for loaded in
               together(tmp_path, RankParts.load, size=4))  # fmt: skip


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_part_that_cannot_be_written_leaves_the_checkpoint_before(
    culprit: int, tmp_path: Path, monkeypatch: Any
) -> None:
    together(tmp_path, save(1))
    original = state_files.write_part

    def write(parent: Any, here: Any, state: Any, rank: int, previous: Any) -> Any:
        if rank == culprit:
            raise OSError(28, "No space left on device")
        return original(parent, here, state, rank, previous)

    monkeypatch.setattr(state_files, "write_part", write)
    results = together(tmp_path, save(2))
    assert all(isinstance(result, ResourceError) and "No space left" in str(result) for result in results)
    assert all(("rank 1: " in str(result)) == (culprit == 1) for result in results)
    assert list_checkpoints(tmp_path) == [1]
    assert {path.name for path in tmp_path.iterdir()} == {"000001", "rows"}
    assert all(differences(loaded.state, state_of(rank)) == [] for rank, loaded in
               enumerate(together(tmp_path, RankParts.load)))  # fmt: skip


def test_a_damaged_part_of_any_rank_makes_all_take_the_checkpoint_before(tmp_path: Path) -> None:
    together(tmp_path, save(1))
    together(tmp_path, save(2))
    (tmp_path / "000002" / "tensors-1.safetensors").write_bytes(b"")
    for loaded in together(tmp_path, RankParts.load):
        assert loaded.meta == {"step": 1}
        assert "rank 1: " in loaded.complaints[0]
        assert "tensors-1.safetensors does not match its checksum" in loaded.complaints[0]
    (tmp_path / "000001" / "state.json").unlink()
    assert all(isinstance(error, CorruptError) for error in together(tmp_path, RankParts.load))


def test_a_checkpoint_of_another_number_of_ranks_is_not_taken(tmp_path: Path) -> None:
    together(tmp_path, save(1))
    for size in (1, 3):
        assert all("is of 2 ranks" in str(error) for error in together(tmp_path, RankParts.load, size=size))


def rename(manifest: dict[str, Any]) -> None:
    manifest["sha256"]["../evil"] = manifest["sha256"].pop("state-1.json")


def add(manifest: dict[str, Any]) -> None:
    manifest["sha256"]["state-2.json"] = manifest["sha256"]["state-1.json"]


def lower(manifest: dict[str, Any]) -> None:
    manifest["format"] = 2


def alone(manifest: dict[str, Any]) -> None:
    del manifest["ranks"]


def many(manifest: dict[str, Any]) -> None:
    manifest["ranks"] = 10**9


def fraction(manifest: dict[str, Any]) -> None:
    manifest["ranks"] = 2.0


@pytest.mark.parametrize("change", [rename, add, lower, alone, many, fraction])
def test_a_manifest_names_the_files_of_so_many_ranks_and_no_others(change: Any, tmp_path: Path) -> None:
    together(tmp_path, save(1))
    manifest = json_of(tmp_path / "000001")
    change(manifest)
    (tmp_path / "000001" / "manifest.json").write_text(json.dumps(signed(manifest)))
    for rank in (0, 1):
        with pytest.raises(CorruptError):
            read_state(tmp_path / "000001", rank=rank)
    assert checkpoint.list_checkpoints(tmp_path) == [1]


def test_one_process_writes_the_format_that_earlier_versions_read(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(tmp_path, state_of(0), {"step": 1})
    assert json_of(path)["format"] == 2
    assert "ranks" not in json_of(path)
