"""A disk that is full or cannot be written: training goes on where a later save may succeed, and else ends with 6."""

from __future__ import annotations

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsw.directory import Directory
from hsw.run import checkpoint
from tests.runs import TINY, call, newest, rows, run_dir, tiny_run


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Python ignores SIGXFSZ: a longer write fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FILES = pytest.mark.parametrize(
    ("recipe", "is_it"),
    [
        ("ppo", lambda path: path.name == "tensors.safetensors"),
        ("sac", lambda path: path.parent.name == "rows"),
    ],
)


def fail_writes(monkeypatch: Any, is_it: Any, fails: Any) -> None:
    """Let the nth checkpoint's writing of some files fail where fails(n)."""
    original, count = Directory.write, [0]

    def write(self: Directory, name: str, content: bytes) -> None:
        path = self.path / name
        if is_it(path) and "checkpoints" in path.parts:
            count[0] += 1
            if fails(count[0]):
                path.write_bytes(content[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
        original(self, name, content)

    monkeypatch.setattr(Directory, "write", write)


@FILES
def test_a_failed_save_warns_and_a_later_one_succeeds(
    recipe: str, is_it: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    fail_writes(monkeypatch, is_it, lambda n: n <= 2)
    result = call(*tiny_run(recipe), "checkpoint_interval=20", run_dir(tmp_path))
    assert result.code == 0, result.err
    assert "No space left on device; training goes on" in (tmp_path / "train.log").read_text()
    assert newest(tmp_path)["step"] >= 128
    assert list((tmp_path / "checkpoints").rglob(".*")) == []
    again = call(f"resume={tmp_path}", "num_train_steps=160", "allow=[tests]")
    assert again.code == 0, again.err


@FILES
def test_a_failed_final_save_is_an_error_and_leaves_the_checkpoint_before(
    recipe: str, is_it: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    fail_writes(monkeypatch, is_it, lambda n: n > 2)
    result = call(*tiny_run(recipe), "checkpoint_interval=20", run_dir(tmp_path))
    assert result.refused(6, "cannot write the checkpoint", "No space left on device")
    assert 0 < newest(tmp_path)["step"] < 128
    assert rows(tmp_path)[-1]["step"] >= 128


def test_a_file_size_limit_fails_checkpoints_and_not_the_training(tmp_path: Path) -> None:
    with largest_file(20_000):
        result = call(*TINY, "checkpoint_interval=20", run_dir(tmp_path))
    assert result.refused(6, "File too large")
    assert rows(tmp_path)[-1]["step"] >= 128
    assert checkpoint.list_checkpoints(tmp_path / "checkpoints") == []


def test_metrics_that_no_longer_fit_leave_whole_rows(tmp_path: Path) -> None:
    with largest_file(4_000):
        result = call(*TINY, "num_train_steps=1000", run_dir(tmp_path))
    assert result.code == 6
    assert 0 < len(rows(tmp_path)) < 1000 // 32  # a short row may fit where a long one did not


@pytest.mark.parametrize("place", ["file/run", "/proc/run", "/dev/null/run"])
def test_a_run_folder_that_cannot_be_written_is_refused_before_the_env_is_built(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("env.id=tests.envs:BuildFails-v0", run_dir(tmp_path / place))
    assert call(*TINY, *arguments).refused(6, "cannot use")
