"""A run that is asked to stop while an environment hangs, or whose main process dies: in time, said, nothing left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hsw.run.checkpoint import list_checkpoints
from tests.faults.test_life import status
from tests.runs import TINY, finish, newest, run_dir, start, wait_for


def hanging(what: str, folder: Path) -> Any:
    """A run whose environment hangs, once it has saved."""
    culprit = ("env.id=tests.faults.culprits:Culprit-v0", f"+env.kwargs={{what:{what},where:step,after:40}}")
    process = start(*TINY, *culprit, "checkpoint_interval=20", "num_train_steps=10000", run_dir(folder))
    wait_for(lambda: process.poll() is not None or len(list_checkpoints(folder / "checkpoints")) == 2)
    time.sleep(0.5)
    return process


CASES = [
    ("hang", "TERM", 143),
    pytest.param("swallow_once", "TERM", 143, marks=pytest.mark.slow),
    pytest.param("hang", "HUP", 143, marks=pytest.mark.slow),
    pytest.param("hang", "INT", 130, marks=pytest.mark.slow),
    pytest.param("swallow_all", "TERM", 143, marks=pytest.mark.slow),
    ("hang_in_c", "TERM", 143),
    ("hang_with_lock", "TERM", -signal.SIGKILL),
]


@pytest.mark.parametrize(("what", "name", "code"), CASES)
def test_a_stop_signal_is_obeyed_while_an_environment_hangs(what: str, name: str, code: int, tmp_path: Path) -> None:
    process = hanging(what, tmp_path)
    begin = time.monotonic()
    os.kill(process.pid, getattr(signal, f"SIG{name}"))
    result = finish(process)
    assert time.monotonic() - begin < 10 + 2, result.err  # a loaded machine's two
    assert result.code == code, result.err
    told = status(tmp_path)
    assert told["status"] == "interrupted"
    assert told["exit_code"] == abs(code) + 128 * (code < 0)
    assert "stopped by signal" in told["error"]
    assert newest(tmp_path)["step"] >= 20
    if what in ("hang_in_c", "hang_with_lock"):
        assert "the last checkpoint is of step" in result.err
        assert "lost" in result.err
