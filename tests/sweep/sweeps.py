"""Sweeps for tests: eight jobs of some seconds, and what they leave."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hsw.run.checkpoint import list_checkpoints
from tests.runs import TINY, differences, newest, wait_for, without_times

LONG = (*TINY, "storage.num_steps=64", "num_train_steps=8000", "checkpoint_interval=1000")
EIGHT = (*LONG, "seed=1,2,3,4,5,6,7,8")
MIDDLE = 5  # checkpoints of eight: far from the end, where what is killed after its last save evaluates twice


def sweep_dir(folder: Path) -> str:
    return f"hydra.sweep.dir={folder}"


def table(folder: Path) -> list[dict[str, str]]:
    """jobs.csv without its times."""
    with (folder / "jobs.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same_sweep(whole: Path, parts: Path) -> None:
    """The table, the metrics and the networks, to the last bit."""
    assert table(whole) == table(parts), (table(whole), table(parts))
    for row in table(whole):
        assert differences(newest(whole / row["job"])["policy"], newest(parts / row["job"])["policy"]) == []
        assert without_times(whole / row["job"]) == without_times(parts / row["job"])


def saved(folder: Path, checkpoints: int = 10**9) -> list[str]:
    """Jobs that are not done and have a checkpoint, at most so many."""
    jobs = [path for path in folder.glob("seed-*") if (path / "checkpoints").is_dir() and not _done(path)]
    numbers = {path.name: list_checkpoints(path / "checkpoints") for path in jobs}
    return [name for name, found in numbers.items() if found and max(found) <= checkpoints]


def _done(folder: Path) -> bool:
    path = folder / "status.json"
    return path.exists() and '"done"' in path.read_text()


def done(folder: Path) -> int:
    return sum(_done(path) for path in folder.glob("seed-*"))


def half_way(process: Any, folder: Path, count: int, beside: Collection[str] = ()) -> str:
    """Wait until so many jobs are done, and one that is not, nor among these, has a checkpoint. Returns that job."""
    found: list[str] = []

    def there() -> bool:
        found[:] = [job for job in saved(folder, MIDDLE) if job not in beside and process_of(folder, job)]
        return process.poll() is not None or (done(folder) >= count and bool(found))

    wait_for(there, 300)
    assert process.poll() is None, process.communicate()
    return found[0]


def process_of(folder: Path, job: str) -> int | None:
    """The process that a job of EIGHT runs in."""
    for path in folder.glob(f".notes*/{int(job.removeprefix('seed-')) - 1}.pid"):
        with contextlib.suppress(OSError, ValueError):  # it ends, or begins, at this moment
            _, pid = path.read_text().split()
            return int(pid)
    return None
