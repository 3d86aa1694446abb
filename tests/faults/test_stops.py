"""A run that is asked to stop while an environment hangs, or whose main process dies: in time, said, nothing left."""

from __future__ import annotations

import contextlib
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
from tests.runs import TINY, call, finish, newest, patience, run_dir, start, tiny, wait_for


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
    result = finish(process, 120)
    assert time.monotonic() - begin < patience(10), result.err
    assert result.code == code, result.err
    told = status(tmp_path)
    assert told["status"] == "interrupted"
    assert told["exit_code"] == abs(code) + 128 * (code < 0)
    assert "stopped by signal" in told["error"]
    assert newest(tmp_path)["step"] >= 20
    if what in ("hang_in_c", "hang_with_lock"):
        assert "the last checkpoint is of step" in result.err
        assert "lost" in result.err


EVAL = ("eval_interval=128", "num_train_steps=10000")
SCENES: dict[str, tuple[str, ...]] = {  # where an environment may hang, and the run's options
    "build": ("+env.kwargs={what:WHAT,where:build}",),
    "reset": ("+env.kwargs={what:WHAT,where:reset}",),
    "late reset": ("+env.kwargs={what:WHAT,where:reset,late:20}", "num_train_steps=10000"),
    "async": ("+env.kwargs={what:WHAT,where:step,after:40}", "env.backend=async", "num_train_steps=10000"),
    "native": (
        "env.id=tests.faults.culprits:CulpritNative-v0",
        "env.backend=native",
        "+env.kwargs={what:WHAT,where:step,after:40}",
        "num_train_steps=10000",
    ),
    "evaluation": ("+env.eval_kwargs={what:WHAT,where:step}", *EVAL),
    "evaluation build": ("+env.eval_kwargs={what:WHAT,where:build}", *EVAL),
    "evaluation close": ("+env.eval_kwargs={what:WHAT,where:close}", *EVAL),
    "close": ("+env.kwargs={what:WHAT,where:close}", "+env.eval_kwargs={what:nothing}"),
}
HANGS = {"hang": 143, "swallow_all": 143, "hang_in_c": 143, "hang_with_lock": -signal.SIGKILL}


@pytest.mark.parametrize(
    ("scene", "what"),
    [pytest.param(s, w, marks=[] if (s, w) == ("reset", "hang") else pytest.mark.slow) for s in SCENES for w in HANGS],
)
def test_a_stop_signal_is_obeyed_wherever_an_environment_hangs(scene: str, what: str, tmp_path: Path) -> None:
    options = [option.replace("WHAT", what) for option in SCENES[scene]]
    arguments = (*TINY, "env.id=tests.faults.culprits:Culprit-v0", *options, "checkpoint_interval=20")
    sign = tmp_path / "hangs"
    process = start(*arguments, run_dir(tmp_path / "run"), env={"CULPRIT": str(sign)})
    wait_for(lambda: process.poll() is not None or sign.exists(), 200)
    time.sleep(0.3)
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    result = finish(process, 120)
    assert time.monotonic() - begin < patience(10), result.err
    # Workers hang by themselves: this process is not in C.
    code = 143 if scene == "async" else HANGS[what]
    assert result.code == code, result.err
    told = status(tmp_path / "run")
    assert (told["status"], told["exit_code"]) == ("interrupted", abs(code) + 128 * (code < 0))
    assert "stopped by signal 15" in told["error"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
@pytest.mark.parametrize("what", HANGS)
def test_a_stop_signal_ends_a_sweep_whose_environments_hang(what: str, launcher: str, tmp_path: Path) -> None:
    kwargs = f"+env.kwargs={{what:{what},where:step,after:40}}"
    arguments = ("--multirun", *TINY, "env.id=tests.faults.culprits:Culprit-v0", kwargs, "num_train_steps=10000")
    sign = tmp_path / "hangs"
    process = start(
        *arguments,
        "seed=1,2",
        f"hydra/launcher={launcher}",
        f"hydra.sweep.dir={tmp_path}/sweep",
        "checkpoint_interval=20",
        env={"CULPRIT": str(sign)},
    )
    wait_for(lambda: process.poll() is not None or sign.exists(), 200)
    time.sleep(0.3)
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    result = finish(process, 120)
    assert time.monotonic() - begin < patience(10), result.err
    assert result.code in (143, HANGS[what] if launcher == "basic" else 143), result.err
    told = status(tmp_path / "sweep" / "seed-1")
    assert told["status"] == "interrupted", told
    assert "stopped by signal 15" in told["error"]
    if result.code == 143:  # else there was nobody left to say it
        assert "interrupted" in (tmp_path / "sweep" / "jobs.csv").read_text()


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
    program = "import os; print(os.getpid(), os.getppid())"
    dead = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid, me = dead.stdout.split()
    folder = f"joblib_memmapping_folder_{{}}_{'0a' * 16}_{'b1' * 16}"
    gone = [f"torch_{pid}_123_0", f"sem.loky-{pid}-ab3_5f7h", f"pym-{pid}-abcdefgh", folder.format(pid)]
    kept = [f"torch_{me}_123_0", f"sem.loky-{me}-ab3_5f7h", folder.format(me), "torch_1_123_0"]  # of living processes
    kept += [f"torch_{pid}_my_data", f"torch_{pid}_123_0.bak", f"xtorch_{pid}_123_0", f"sem.other-{pid}-abcdefgh"]
    kept += [f"pym-{pid}-", f"joblib_memmapping_folder_{pid}", f"loky-{pid}-results", "psm_12345", f"ray_{pid}"]
    for name in (*gone, *kept):
        if "folder" in name:
            (tmp_path / name).mkdir()
            (tmp_path / name / "array.pkl").touch()
        else:
            (tmp_path / name).touch()
    assert sorted(guardian.sweep_shared_memory(tmp_path)) == sorted(gone)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.slow
def test_the_next_run_sweeps_what_one_left_that_was_killed_with_its_guardian(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    command = (*tiny("impala"), "env=catch", "num_train_steps=1000000", "checkpoint_interval=64")
    process = start(*command, run_dir(tmp_path / "killed"), env={"KILLED": str(tmp_path)})
    wait_for(lambda: process.poll() is not None or list((tmp_path / "killed").glob("checkpoints/*/manifest.json")))
    beside = [pid for pid in children(process.pid) if b"guardian.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    dead = f"torch_{process.pid}_1_0"  # torch's strategy of names, which hsw does not take by itself
    Path("/dev/shm", dead).touch()
    for pid in (*beside, process.pid, *carrying(str(tmp_path))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not carrying(str(tmp_path)), 5)
    assert len(beside) == 1
    assert dead in os.listdir("/dev/shm")
    assert call(*TINY, run_dir(tmp_path / "next")).code == 0
    wait_for(lambda: dead not in os.listdir("/dev/shm"), 5)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if str(process.pid) in name}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["hang_in_c", "hang_with_lock"])
def test_an_actor_that_hangs_in_c_ends_with_a_killed_program(what: str, tmp_path: Path) -> None:
    """A program of a person's own, which has no run folder."""
    program = (
        "from functools import partial\n"
        "from hsw.env import make_env\n"
        "from tests.agent.helpers import distributed_agent\n"
        f"kwargs = {{'what': '{what}', 'where': 'step', 'after': 40}}\n"
        "make = partial(make_env, 'tests.faults.culprits:Culprit-v0', 'sync', 2, kwargs)\n"
        "distributed_agent(make(), actor_timeout=60.0, num_actors=2).train(100000)\n"
    )
    process = start(program=("-c", program), env={"CULPRIT": str(tmp_path / "hangs"), "TMPDIR": str(tmp_path)})
    wait_for(lambda: process.poll() is not None or (tmp_path / "hangs").exists())
    time.sleep(1.0)
    temporary = list(tmp_path.glob("pymp-*"))
    assert len(temporary) == 1
    process.kill()
    process.communicate()
    wait_for(lambda: not carrying(str(tmp_path)), 5)
    wait_for(lambda: not any(path.exists() for path in temporary), 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "where"), [("hang_with_lock", "step"), ("hang_with_lock", "reset"), ("hang", "build")]
)
def test_a_learner_stops_whose_actors_hang(what: str, where: str, tmp_path: Path) -> None:
    culprit = ("env.id=tests.faults.culprits:Culprit-v0", f"+env.kwargs={{what:{what},where:{where},after:400}}")
    limits = ("agent.actor_timeout=60", "checkpoint_interval=32", "num_train_steps=100000")
    sign = tmp_path / "hangs"
    process = start(*tiny("impala"), *culprit, *limits, run_dir(tmp_path / "run"), env={"CULPRIT": str(sign)})
    wait_for(lambda: process.poll() is not None or sign.exists(), 200)
    time.sleep(1.0)
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    result = finish(process, 120)
    assert time.monotonic() - begin < patience(10), result.err
    assert result.refused(143, "stopped by signal 15")
    assert status(tmp_path / "run")["exit_code"] == 143
    assert not carrying(str(sign))


@pytest.mark.slow
def test_actors_that_hang_in_c_are_replaced_until_patience_ends(tmp_path: Path) -> None:
    culprit = ("env.id=tests.faults.culprits:Culprit-v0", "+env.kwargs={what:hang_with_lock,where:step,after:40}")
    limits = ("agent.actor_timeout=2", "agent.max_restarts=1", "num_train_steps=100000")
    begin = time.monotonic()
    result = finish(start(*tiny("impala"), *culprit, *limits, run_dir(tmp_path)), timeout=100)
    assert result.refused(5, "has not made a step for 2 s")
    assert time.monotonic() - begin < patience(59)


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
