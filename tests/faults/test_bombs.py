"""Files of a run folder that are too deep, too long or too large: bounded in time and memory, and one sentence."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsw import eval as evaluation
from hsw import report
from tests.runs import Result, call, run_dir, tiny_run

GIGABYTE = 2**30
BOMBS = {
    "depth": b"[" * 1_000_000,
    "depth of objects": b'{"a":' * 200_000,
    "number": b'{"step": ' + b"9" * 1_000_000 + b"}\n",
    "exponent": b'{"step": 1e999999999, "seed": -1e999999999}\n',
    "no object": b'"a"\n' * 1000,
    "bytes": b"\xff\xfe\x00" * 1000,
    "sparse": b"",  # a gigabyte of zeros without a newline, which takes no room on the disk
}
FILES = ("status.json", "versions.json", "metrics.jsonl", "checkpoints/*/state.json")
READERS = {
    "resume": lambda run: call(f"resume={run}", "num_train_steps=160"),
    "eval": lambda run: call(str(run), "--episodes", "1", main=evaluation.cli),
    "report": lambda run: call(str(run), "--no-curves", "--reps", "20", main=report.cli),
}


@pytest.fixture
def bounded() -> Iterator[None]:
    """Half a gigabyte of memory more than is mapped now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + GIGABYTE // 2, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert call(*tiny_run("ppo"), run_dir(run)).code == 0
    for reader in READERS.values():
        assert reader(run).code == 0  # and all that they import is imported
    return run


CASES = [
    # A few of them on every day: each bomb once, each file and each reader.
    pytest.param(bomb, name, reader, marks=() if (2 * i + j) % 4 == 0 and (i + j + k) % 3 == 0 else pytest.mark.slow)
    for i, bomb in enumerate(BOMBS)
    for j, name in enumerate(FILES)
    for k, reader in enumerate(READERS)
]


@pytest.mark.parametrize(("bomb", "name", "reader"), CASES)
def test_a_bomb_in_a_run_folder_is_bounded(
    bomb: str, name: str, reader: str, whole: Path, tmp_path: Path, bounded: None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with max(run.glob(name)).open("wb") as file:
        file.write(BOMBS[bomb])
        if bomb == "sparse":
            file.truncate(2 * GIGABYTE)
    began = time.process_time()
    result: Result = READERS[reader](run)
    assert time.process_time() - began < 5
    assert result.code in (0, 2, 6, 7), result.err
    assert result.code == 0 or result.refused(result.code)
    assert "Traceback" not in result.err
