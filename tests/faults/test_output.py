"""Whatever becomes of stdout, stderr and the log, training and the exit code are the same."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hsw import output
from hsw.errors import ResourceError
from hsw.run import status
from hsw.run.progress import Progress
from tests.faults.culprits import WHATS
from tests.runs import ROOT, TINY, call, newest, rows, run_dir, wait_for, without_times

LOUD = tuple(word for word in TINY if word != "quiet=true")
STREAMS = [
    ">/dev/full 2>/dev/full",
    pytest.param(">&- 2>&-", marks=pytest.mark.slow),
    pytest.param("2>&1 | head -1", marks=pytest.mark.slow),
    pytest.param("2>/dev/full", marks=pytest.mark.slow),
    pytest.param("<&- >&-", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("streams", STREAMS)
def test_streams_that_take_nothing_change_neither_training_nor_the_exit_code(streams: str, tmp_path: Path) -> None:
    chatty = ("env.id=tests.envs:Chatty-v0", "+env.kwargs.size=1000", "env.backend=async")
    command = shlex.join([sys.executable, "-m", "hsw.train", *LOUD, *chatty, run_dir(tmp_path)])
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = f"set -o pipefail; {command} {streams}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path)[-1]["step"] >= 128
    assert json.loads((tmp_path / "status.json").read_bytes())["exit_code"] == 0
    assert "±" in (tmp_path / "train.log").read_text("utf-8")


@pytest.mark.slow
def test_a_terminal_that_is_closed_saves_the_run_and_ends_it_as_a_signal_does(tmp_path: Path) -> None:
    """A terminal of its own, whose other end is closed: the kernel sends SIGHUP, and every write fails."""
    run = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        long = (*LOUD, "num_train_steps=1000000", "checkpoint_interval=1000000", run_dir(run))
        os.execv(sys.executable, [sys.executable, "-m", "hsw.train", *long])
    try:
        wait_for(lambda: select.select([terminal], [], [], 0)[0] and os.read(terminal, 4096) and rows(run))
        os.close(terminal)
        wait_for(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), 30)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told = json.loads((run / "status.json").read_bytes())
    assert (code, told["status"], told["exit_code"]) == (143, "interrupted", 143)
    assert newest(run)["step"] == told["steps"] > 0


def test_a_progress_line_that_fails_is_the_last(tmp_path: Path, monkeypatch: Any) -> None:
    calls = []

    def update(self: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(args)
        raise ValueError("no such colour")

    assert call(*LOUD, run_dir(tmp_path / "one")).code == 0
    monkeypatch.setattr(Progress, "update", update)
    assert call(*LOUD, run_dir(tmp_path / "other")).code == 0
    assert len(calls) == 1
    assert (tmp_path / "other" / "train.log").read_text().count("no such colour") == 1
    assert without_times(tmp_path / "one") == without_times(tmp_path / "other")


def test_a_log_that_takes_no_more_says_so_once(tmp_path: Path, capsys: Any) -> None:
    logger = logging.Logger("some")
    handler = logging.FileHandler("/dev/full")
    logging.getLogger().addHandler(handler)
    try:
        output.secure_logging()
        for _ in range(3):
            logging.getLogger().error("a line")
    finally:
        logging.getLogger().removeHandler(handler)
        del logger
    assert "Logging error" not in capsys.readouterr().err


def test_how_a_run_ended_is_told_by_a_disk_that_takes_no_new_file(tmp_path: Path, monkeypatch: Any) -> None:
    running = {"status": "running", "num_train_steps": 5, "identity": {}}
    status.write_status(tmp_path, running)

    def full(path: Path, content: bytes) -> None:
        raise ResourceError("no space")

    monkeypatch.setattr(status, "write_whole", full)
    status.write_status(tmp_path, {**running, "status": "failed", "exit_code": 6, "error": "é" * 10_000})
    told = status.read_status(tmp_path, {})
    assert told is not None
    assert (told["status"], told["exit_code"]) == ("failed", 6)
    assert os.listdir(tmp_path) == ["status.json"]


@pytest.mark.parametrize(
    "text", ["\x1b[2Jgone", "\x9b31m", "a\x07b", "\x1b]0;title\x07", "line\r\x1b[Aover", "\u202eevil"]
)
def test_what_came_from_outside_commands_no_terminal(text: str, tmp_path: Path, monkeypatch: Any) -> None:
    def fail() -> None:
        raise ValueError(text)

    monkeypatch.setitem(WHATS, "raise", fail)
    culprit = ("env.id=tests.faults.culprits:Culprit-v0", "+env.kwargs={what:raise,where:step}")
    result = call(*TINY, *culprit, run_dir(tmp_path))
    assert result.code == 3
    assert all(character.isprintable() or character == "\n" for character in result.err + result.out)


def test_a_job_that_exits_is_a_failure_in_status_and_exit_code_alike(tmp_path: Path, monkeypatch: Any) -> None:
    from hsw.algorithm import PPO

    monkeypatch.setattr(PPO, "update", lambda *_: sys.exit(0))
    assert call(*TINY, run_dir(tmp_path)).code == 1
    told = json.loads((tmp_path / "status.json").read_bytes())
    assert (told["status"], told["exit_code"]) == ("failed", 1)
    sweep = call("--multirun", *TINY, "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    assert sweep.refused(1, "2 of 2 jobs failed")
