"""A run that is asked to stop while an environment hangs, or whose main process dies: in time, said, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hsw.errors import ConfigError
from hsw.run import guardian
from hsw.run.checkpoint import list_checkpoints
from hsw.run.folder import RunFolder
from hsw.run.watched import own_folder
from tests.faults.campaign.server import carrying
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
    pytest.param("hang_in_c", "TERM", 143, marks=pytest.mark.slow),
    pytest.param("hang_with_lock", "TERM", -signal.SIGKILL, marks=pytest.mark.slow),
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


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize("delay", [3.0, 6.0, 12.0])
def test_a_killed_sweep_leaves_no_process_and_goes_on(launcher: str, delay: float, tmp_path: Path) -> None:
    arguments = ("--multirun", *TINY, "seed=1,2", "num_train_steps=3000", "checkpoint_interval=200")
    command = (*arguments, f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}")
    process = start(*command, env={"KILLED": str(tmp_path)})
    time.sleep(delay)
    process.kill()
    process.communicate()
    wait_for(lambda: not carrying(str(tmp_path)), 5)
    result = finish(start(*command), timeout=200)
    assert result.code == 0, result.err
    assert [status(tmp_path / f"seed-{seed}")["status"] for seed in (1, 2)] == ["done", "done"]


def test_a_rerun_ends_the_orphan_that_it_meets_and_says_so(tmp_path: Path, caplog: Any) -> None:
    """An owner of the folder whose own parent is gone, and whose guardian was killed too."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from hsw.run.folder import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "print('owns', flush=True)\n"
        "time.sleep(3600)\n"
    )
    env = {**os.environ, guardian.MARK: "999999999-1"}
    orphan = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=env, stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    assert orphan.stdout.readline() == b"owns\n"
    own_folder(tmp_path).close()
    assert f"in use by process {orphan.pid}, which a killed run left behind" in caplog.text
    assert orphan.wait() == -signal.SIGTERM
    orphan.stdout.close()


def test_a_rerun_leaves_a_living_runs_folder_alone(tmp_path: Path) -> None:
    owner = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        own_folder(tmp_path)
    owner.close()


def test_shared_memory_of_dead_processes_is_swept_and_no_other(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    pid = dead.stdout.strip()
    gone = [f"torch_{pid}_123_0", f"sem.loky-{pid}-abc", f"joblib_memmapping_folder_{pid}_abc"]
    kept = [f"torch_{os.getpid()}_123_0", f"sem.other-{pid}-abc", "psm_12345"]
    for name in (*gone, *kept):
        (tmp_path / name).mkdir() if "folder" in name else (tmp_path / name).write_text("")
    assert sorted(guardian.sweep_shared_memory(tmp_path)) == sorted(gone)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_guardian_ends_with_its_process_and_kills_none_that_ended_well(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "from hsw.run.watched import guarded\n"
        "with guarded() as beside:\n"
        "    child = subprocess.Popen(['sleep', '3600'], stdout=subprocess.DEVNULL)\n"
        "    print(beside._process.pid, child.pid, flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    for killed in (True, False):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        beside, child = map(int, process.stdout.readline().split())
        process.kill() if killed else process.stdin.write("\n")
        process.communicate()
        wait_for(lambda beside=beside: not guardian.started(beside) or guardian.is_zombie(beside), 5)
        assert bool(guardian.started(child) and not guardian.is_zombie(child)) == (not killed)
        if not killed:
            os.kill(child, signal.SIGKILL)
