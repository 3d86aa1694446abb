"""A file system that is read-only: code 6 with a sentence, before anything is built."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import TINY, call, finish, run_dir, start


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


def test_a_read_only_folder_is_refused_before_an_environment_is_built(disk: Path) -> None:
    remount(disk, "ro")
    broken = (*TINY, "env.id=tests.envs:BuildFails-v0")
    assert call(*broken, run_dir(disk / "run")).refused(6, f"cannot use {disk / 'run'}", "Read-only file system")
    assert call("--multirun", *broken, "seed=1,2", f"hydra.sweep.dir={disk / 'sweep'}").refused(6, "Read-only")


def test_a_run_whose_folder_has_become_read_only_is_resumed_once_it_can_be_written(disk: Path) -> None:
    assert finish(start(*TINY, run_dir(disk / "run"))).code == 0  # in a process of its own, which leaves no file open
    remount(disk, "ro")
    assert call(f"resume={disk / 'run'}", "num_train_steps=160").refused(6, "Read-only file system")
    remount(disk, "rw")
    assert call(f"resume={disk / 'run'}", "num_train_steps=160").code == 0
