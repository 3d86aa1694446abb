"""Files in a folder that are too large, and texts in it that a spreadsheet or a terminal would obey."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest

from hsw.directory import lines_of
from hsw.errors import CorruptError
from hsw.run.checkpoint import load_newest
from hsw.run.csv_logger import CsvLogger
from hsw.run.logger import TensorBoardLogger
from hsw.run.metrics import Metrics
from hsw.run.status import JobOutcome
from hsw.sweep.table import as_csv
from hsw.trained import TrainedPolicy
from tests.runs import call, run_dir, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    made = (*tiny("sac"), "env=pendulum", "env.num_envs=2", "checkpoint_interval=40", run_dir(folder))
    assert call(*made).code == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_file_larger_than_memory_is_damage_and_the_checkpoint_before_is_used(name: str, run: Path) -> None:
    with (run / "checkpoints" / "000004" / name).open("ab") as file:
        file.truncate(2**42)  # sparse: it takes no room on the disk
    loaded = load_newest(run / "checkpoints")
    assert (loaded.path.name, len(loaded.complaints)) == ("000003", 1)


def test_rows_larger_than_memory_are_not_even_hashed(run: Path) -> None:
    for path in (run / "checkpoints" / "rows").iterdir():
        with path.open("ab") as file:
            file.truncate(2**42)
    with pytest.raises(CorruptError, match="larger than memory"):
        load_newest(run / "checkpoints")


@pytest.mark.parametrize("logger", [CsvLogger, TensorBoardLogger])
def test_a_line_of_metrics_without_end_ends_a_copy_and_is_not_read(
    logger: Any, tmp_path: Path, monkeypatch: Any, recwarn: Any
) -> None:
    monkeypatch.setattr("hsw.directory._LONGEST_LINE", 1000)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "x": "' + "a" * 5000)
    metrics = Metrics(logger())
    metrics.start(tmp_path, {}, None)
    metrics.log(2, {"x": 1.0})
    metrics.finish(0)
    assert [w for w in recwarn if "line of more than 1000 bytes" in str(w.message)]


def test_a_line_without_end_is_not_read_from_python_either(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("hsw.directory._LONGEST_LINE", 1000)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + "[" * 5000)
    trained = TrainedPolicy.__new__(TrainedPolicy)
    trained.folder = tmp_path
    with pytest.raises(CorruptError, match="line of more than"):
        _ = trained.metrics
    assert list(lines_of(io.BytesIO(b"a\nb"))) == [b"a\n", b"b"]


def test_the_table_of_a_sweep_has_no_formula_and_no_escape() -> None:
    notes = ("=HYPERLINK(1)", "+1", "-1", "@x", "a\x1b[2Jb", "\u202etxt", "plain", None)
    rows = csv.DictReader(io.StringIO(as_csv([JobOutcome("failed", 1, note=note, score=-1.5) for note in notes])))
    told = list(rows)
    assert [row["note"][:1] for row in told[:4]] == ["'"] * 4
    assert all(row["note"].isprintable() for row in told)
    assert (told[6]["note"], told[7]["note"], told[0]["return"]) == ("plain", "", "-1.5")
