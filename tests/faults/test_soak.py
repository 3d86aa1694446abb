"""Long runs: memory, descriptors, threads and shared memory stay flat; `make soak` takes a million steps of each."""

from __future__ import annotations

import csv
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from tests.faults.soak import SLACK, Sample, last_step, leaks, look, soak, write


def series(**slopes: float) -> list[Sample]:
    """Samples of a run of 10^6 steps; slopes are by the whole run, with noise around them."""
    rng = np.random.default_rng(0)
    base = {"rss": 500.0, "pss": 400.0, "descriptors": 40.0, "threads": 6.0, "shared": 8.0, "segments": 3.0}
    made = []
    for at in np.linspace(0.01, 1, 100):
        warm = 300 * min(1.0, at / 0.1)  # what is taken up in the beginning is no leak
        values = {name: value + slopes.get(name, 0.0) * at for name, value in base.items()}
        values["pss"] += warm + rng.normal()
        figures = {name: float(value) for name, value in values.items()}
        made.append(Sample(seconds=at * 100, step=int(at * 10**6), processes=3, **figures))  # type: ignore[arg-type]
    return made


def test_what_a_run_takes_up_in_the_beginning_is_no_leak() -> None:
    assert leaks(series()) == []


@pytest.mark.parametrize("name", SLACK)
def test_a_leak_is_told(name: str) -> None:
    (told,) = leaks(series(**{name: 60.0}))
    assert told.startswith(f"{name} grew by 4")


def test_what_a_process_opens_is_seen() -> None:
    before = look([os.getpid()])
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(7)]
    segment = Path(f"/dev/shm/torch_{os.getpid()}_soak")
    segment.write_bytes(b"x" * 2**20)
    try:
        with segment.open("r+b") as file, mmap.mmap(file.fileno(), 2**20) as shared:
            shared[:] = b"y" * 2**20
            after = look([os.getpid()])
    finally:
        segment.unlink()
        for each in files:
            os.close(each)
    assert after.descriptors - before.descriptors == 9  # and the segment's, twice
    assert after.segments - before.segments == 1
    assert abs(after.shared - before.shared - 1) < 0.01
    assert (after.processes, after.threads >= 1, after.rss >= after.pss > 1) == (1, True, True)


def test_the_last_whole_row_says_the_step(tmp_path: Path) -> None:
    assert last_step(tmp_path / "none") == 0
    (tmp_path / "rows").write_text('{"step": 5}\n{"step": 9}\n{"st')
    assert last_step(tmp_path / "rows") == 9


def test_samples_picture_and_judgement_are_written(tmp_path: Path) -> None:
    write(tmp_path, {"ppo": series(), "sac": series(descriptors=30)}, 10**6, "the command")
    with (tmp_path / "soak.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 200
    told = (tmp_path / "soak.md").read_text()
    assert "| flat |" in told
    assert "| descriptors grew by" in told
    assert (tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ppo", "daac", "impala", "sac", "her_sac"])
def test_a_run_of_20_000_steps_is_flat(family: str, tmp_path: Path) -> None:
    assert leaks(soak(family, 20_000, tmp_path / "run")) == []
