"""A replay on disk is the same as one in memory, needs none of it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from hsw.config.resolved import identity, load_config
from hsw.errors import ConfigError, CorruptError, ResourceError
from hsw.run import rows as saved_rows
from hsw.run.checkpoint import load_newest, save_checkpoint
from hsw.run.folder import RunFolder, UnownedFolder
from hsw.run.services import Run
from hsw.storage import HerReplayStorage, PrioritizedReplayStorage, ReplayStorage, mapped, records, ring
from tests.faults.test_disk import largest_file
from tests.helpers import equal
from tests.runs import ROOT, call, compose, run_dir, tiny_run

PAIR = Box(-np.inf, np.inf, (2,), np.float32)
SPACE = Dict({"observation": Box(0, 255, (3, 4), np.uint8), "achieved_goal": PAIR, "desired_goal": PAIR})
KINDS = (ReplayStorage, HerReplayStorage, PrioritizedReplayStorage)


def make(kind: Any, memory: str, folder: Path | None = None, size: int = 60, **options: Any) -> Any:
    own = {"reward_fn": lambda one, other, info: -np.abs(one - other).sum(-1)} if kind is HerReplayStorage else {}
    storage = kind(SPACE, Discrete(3), "cpu", size, 3, 8, memory=memory, **own, **options)
    storage.disk_folder = folder
    return storage


def rows(count: int, seed: int = 0) -> Any:
    """Rows of three environments, episodes of a few steps, some ends of each kind."""
    random = np.random.default_rng(seed)
    space = SPACE
    space.seed(seed)
    draw = lambda: {key: np.stack([space[key].sample() for _ in range(3)]) for key in space.spaces}
    before, ended = draw(), np.zeros(3, bool)
    for _ in range(count):
        after, done = draw(), random.random((2, 3)) < 0.1
        yield {
            "observations": before,
            "actions": random.integers(3, size=3),
            "rewards": random.normal(size=3).astype(np.float32),
            "terminateds": done[0] & ~ended,
            "truncateds": done[1] & ~ended,
            "info": {},
            "next_observations": after,
            "valid": ~ended,
        }
        before, ended = after, (done[0] | done[1]) & ~ended


def drawn(storage: Any, count: int = 3) -> list[Any]:
    return [vars(storage.sample()) for _ in range(count)]


@pytest.mark.parametrize(("kind", "n_step"), zip(KINDS, (3, 1, 3), strict=True))
def test_what_is_drawn_and_saved_is_the_same_bit_for_bit(kind: Any, n_step: int, tmp_path: Path) -> None:
    options = {} if kind is HerReplayStorage else {"n_step": n_step}
    ram, disk = (make(kind, memory, tmp_path, **options) for memory in ("ram", "disk"))
    previous = None
    for t, row in enumerate(rows(70)):  # the ring has 21 rows of each environment
        ram.add(**row)
        disk.add(**row)
        if t % 23 == 22:
            batches = [drawn(storage) for storage in (ram, disk)]
            assert equal(*batches)
            for storage, batch in zip((ram, disk), batches, strict=True):
                if kind is PrioritizedReplayStorage:
                    storage.update_priorities(batch[0]["indices"], batch[0]["weights"] + t)
            state = disk.state_dict()
            assert equal(state, ram.state_dict())
            previous = save_checkpoint(tmp_path / "checkpoints", {"storage": state}, {}, previous=previous)
            other = make(kind, "disk" if t > 40 else "ram", tmp_path, **options)  # each takes over what either saved
            other.load_state_dict(load_newest(tmp_path / "checkpoints").state["storage"])
            assert equal(other.get_all_buffer_data(), ram.get_all_buffer_data())
            assert equal(other.state_dict(), ram.state_dict())
            disk = other if other.memory == "disk" else disk
            disk.random_state = ram.random_state
    assert equal(drawn(ram), drawn(disk))


def deleted_files() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if ".replay-" in line]


def test_its_file_has_no_name_and_goes_with_it(tmp_path: Path) -> None:
    gc.collect()
    assert deleted_files() == []
    storage = make(HerReplayStorage, "disk", tmp_path)
    storage.add(**next(rows(1)))
    (line,) = deleted_files()
    assert str(tmp_path) in line
    assert line.endswith("(deleted)")
    assert list(tmp_path.iterdir()) == []
    del storage
    gc.collect()
    assert deleted_files() == []
    storage = make(ReplayStorage, "disk", None)
    storage.add(**next(rows(1)))
    assert tempfile.gettempdir() in deleted_files()[0]


def test_a_folder_that_is_only_read_gets_no_file(tmp_path: Path) -> None:
    with contextlib.closing(RunFolder(tmp_path)) as own:
        assert Run(own).disk_folder == tmp_path
    with contextlib.closing(UnownedFolder(tmp_path)) as read:
        assert Run(read).disk_folder is None


def test_rows_are_read_back_a_file_at_a_time_whatever_they_take_altogether(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(ring, "_PIECE_BYTES", 500)
    storage = make(ReplayStorage, "disk", tmp_path)
    for row in rows(12):
        storage.add(**row)
    save_checkpoint(tmp_path / "checkpoints", {"storage": storage.state_dict()}, {})
    sizes = [path.stat().st_size for path in (tmp_path / "checkpoints" / "rows").iterdir()]
    assert len(sizes) > 3
    monkeypatch.setattr(saved_rows, "available_memory", lambda: max(sizes))
    other = make(ReplayStorage, "disk", tmp_path)
    other.load_state_dict(load_newest(tmp_path / "checkpoints").state["storage"])
    assert equal(other.get_all_buffer_data(), storage.get_all_buffer_data())
    monkeypatch.setattr(saved_rows, "available_memory", lambda: max(sizes) - 1)
    with pytest.raises(CorruptError, match="is larger than memory"):
        load_newest(tmp_path / "checkpoints")


def test_what_is_in_the_way_is_neither_followed_nor_emptied(tmp_path: Path) -> None:
    name, target = f".replay-{os.getpid()}", tmp_path / "target"
    target.write_text("somebody's")
    (tmp_path / name).symlink_to(target)
    make(ReplayStorage, "disk", tmp_path).add(**next(rows(1)))
    assert target.read_text() == "somebody's"
    (tmp_path / name).mkdir()
    (tmp_path / name / "inner").write_text("also")
    with pytest.raises(CorruptError, match="is no file"):
        make(ReplayStorage, "disk", tmp_path).add(**next(rows(1)))
    assert (tmp_path / name / "inner").read_text() == "also"


def test_a_disk_that_does_not_take_it_is_said_before_anything_is_stored(tmp_path: Path) -> None:
    with (
        largest_file(2**12),
        pytest.raises(ResourceError, match=r"cannot keep a replay of .* lower storage.storage_size"),
    ):
        make(ReplayStorage, "disk", tmp_path, 6000).add(**next(rows(1)))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_a_run_with_6_and_what_to_change(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 100}))
    result = call(*tiny_run("sac"), "storage.memory=disk", run_dir(tmp_path), "allow=[tests]")
    assert result.refused(6, "the replay on disk needs", str(tmp_path), "GiB are free", "storage.storage_size")


def test_memory_limits_what_is_in_memory_and_names_the_disk(monkeypatch: Any) -> None:
    monkeypatch.setattr(records, "available_memory", lambda: 20_000)
    with pytest.raises(ConfigError, match=r"unless storage.memory=disk.*storage_size=\d+$"):
        make(ReplayStorage, "ram", size=1000)
    make(ReplayStorage, "disk", size=1000)
    with pytest.raises(ConfigError, match=r"needs .* 8 bytes a row, and"):
        make(ReplayStorage, "disk", size=10_000)
    with pytest.raises(ConfigError, match="memory=tape does not exist; take ram or disk"):
        make(ReplayStorage, "tape")


def test_a_job_is_the_same_wherever_its_replay_lies() -> None:
    disk, ram = (identity(compose("agent=dqn", f"storage.memory={memory}")) for memory in ("disk", "ram"))
    assert disk == ram
    assert load_config(ROOT / "tests" / "data" / "runs-0.1.0" / "sac").storage.memory == "ram"


# Private memory of a process is limited; a file's pages, which the system may take back at any time, are not.
LIMITED = """
import resource, sys
import numpy as np
from gymnasium.spaces import Box, Discrete
from hsw.storage import ReplayStorage
from pathlib import Path

memory, folder, size = sys.argv[1], sys.argv[2], 40_000
space = Box(0, 255, (84, 84, 4), np.uint8)  # 1.1 GiB
storage = ReplayStorage(space, Discrete(4), "cpu", size, 1, 32, memory=memory)
storage.disk_folder = Path(folder)
data = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
limit = data + 200 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
frame, zero = np.zeros((1, 84, 84, 4), np.uint8), np.zeros(1, bool)
for t in range(size + 100):
    frame[:] = t % 251
    storage.add(frame, np.array([t % 4]), np.array([t], np.float32), zero, zero, {}, frame)
for _ in range(50):
    batch = storage.sample()
    assert (batch.obs[:, 0, 0, 0] == batch.rewards % 251).all(), batch.rewards
anonymous = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(anonymous // 1024)
"""


@pytest.mark.slow
def test_a_replay_larger_than_the_memory_that_a_process_may_have_is_filled_and_drawn_from(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED]
    disk = subprocess.run([*command, "disk", str(tmp_path)], capture_output=True, text=True, check=False)
    assert disk.returncode == 0, disk.stderr
    assert int(disk.stdout) < 700  # MiB, torch and the rest included
    ram = subprocess.run([*command, "ram", str(tmp_path)], capture_output=True, text=True, check=False)
    assert "MemoryError" in ram.stderr
