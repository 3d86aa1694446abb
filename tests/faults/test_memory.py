"""A replay that cannot fit is refused before it is allocated; a long run takes no more memory than a short one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from hsw.storage.ring import Ring
from tests.runs import COMMON, agent_of, call, run_dir


@pytest.mark.parametrize(("recipe", "env"), [("sac", "pendulum"), ("her_sac", "bit_flipping")])
def test_a_replay_larger_than_memory_is_refused_with_the_largest_that_fits(
    recipe: str, env: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Ring, "__init__", None)  # nothing is allocated
    arguments = (*COMMON, f"agent={recipe}", f"env={env}", "storage.storage_size=100000000000", run_dir(tmp_path))
    result = call(*arguments)
    assert result.refused(2, "storage.storage_size=10000000000", " GiB", "are free; the largest that fits is")
    largest = int(re.findall(r"storage_size=(\d+)", result.sentence)[-1])
    assert 10_000 < largest < 10**11


def resources() -> tuple[int, int, int]:
    """Resident bytes, file descriptors, shared-memory segments."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), len(os.listdir("/dev/shm"))


@pytest.mark.parametrize("steps", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_descriptors_and_disk_stay_flat_over_many_steps(steps: int, tmp_path: Path) -> None:
    overrides = (
        "env.id=tests.envs:Counter-v0",
        "+env.kwargs.continuous=true",
        "env.num_envs=16",
        "storage.storage_size=2000",
        "agent.updates_per_step=0.002",
        f"agent.log_interval={steps // 20}",
        f"checkpoint_interval={steps // 20}",
        f"eval_interval={steps // 4}",
    )
    seen, disk = [], []
    with agent_of("agent=sac", *overrides, folder=tmp_path) as agent:
        save = agent.services.save

        def measuring(*args: Any, **kwargs: Any) -> None:
            save(*args, **kwargs)
            seen.append(resources())
            disk.append(sum(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()))

        agent.services.save = measuring  # type: ignore[method-assign]
        agent.train(steps)
        assert agent.step >= steps
    early, late = seen[5:10], seen[-5:]
    grown = [max(values) - max(before) for values, before in zip(zip(*late), zip(*early))]  # noqa: B905
    assert grown[0] < 4 * 2**20
    assert grown[1:] == [0, 0]
    assert max(disk[-5:]) <= 1.2 * max(disk[5:10])
