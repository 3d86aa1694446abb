"""A SLURM of one machine, for tests: sbatch, srun, sacct, scontrol and scancel, as far as submitit needs them.

Each job of an array runs its batch script in processes of its own. Files in $FAKE_SLURM say how each stands
(<job>.state) and what shall become of it: <job>.preempt, <job>.fail (its node), <job>.cancel, <job>.requeue.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

STATE = Path(os.environ.get("FAKE_SLURM", "."))
GRACE = 20.0  # seconds between SIGTERM and SIGKILL


def install(folder: Path) -> dict[str, str]:
    """Put the commands into a folder. Returns the environment variables that lead there."""
    commands, state = folder / "bin", folder / "state"
    commands.mkdir(parents=True)
    state.mkdir()
    for name in ("sbatch", "srun", "sacct", "scontrol", "scancel"):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        (commands / name).chmod(0o755)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "FAKE_SLURM": str(state)}


def order(state: Path, job: str, what: str) -> None:
    """Let something become of a job."""
    (state / f"{job}.{what}").touch()


def sbatch(script: str) -> None:
    number = 100 + len(list(STATE.glob("*.sh")))
    batch = Path(shutil.copy(script, STATE / f"{number}.sh"))
    print(f"Submitted batch job {number}", flush=True)
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        _run_all(number, batch)


def _run_all(number: int, batch: Path) -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", batch.read_text(), re.MULTILINE))
    last, _, together = options.get("array", "0-0%1").strip("'").partition("-")[2].partition("%")
    jobs = [f"{number}_{index}" for index in range(int(last) + 1)] if "array" in options else [str(number)]
    for job in jobs:
        _tell(job, "PENDING")
    room = threading.Semaphore(int(together))

    def run(job: str) -> None:
        with room:
            while _run(job, batch, options):
                _tell(job, "REQUEUED")
                time.sleep(0.5)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()


def _run(job: str, batch: Path, options: dict[str, str]) -> bool:
    """Run a job; whether it is to be run again."""
    array, _, index = job.partition("_")
    variables = {"SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_PROCID": "0"}
    variables |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index} if index else {}
    process = subprocess.Popen(["bash", batch], env={**os.environ, **variables}, start_new_session=True)
    _tell(job, "RUNNING")
    kill_at, again, state = float("inf"), False, ""
    while process.poll() is None:
        for what in ("cancel", "preempt", "fail", "requeue", "kill"):
            if not (STATE / f"{job}.{what}").exists():
                continue
            (STATE / f"{job}.{what}").unlink()
            if what in ("cancel", "preempt"):
                _signal(job, signal.SIGTERM)
            kill_at = time.monotonic() + (0 if what in ("fail", "kill") else GRACE)
            again = what == "requeue" or (what in ("preempt", "fail") and "requeue" in options)
            state = "CANCELLED" if what in ("cancel", "kill") else ""
        if time.monotonic() > kill_at:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    if (STATE / f"{job}.requeue").exists():
        (STATE / f"{job}.requeue").unlink()
        again = True
    (STATE / f"{job}.task").unlink(missing_ok=True)
    if not again:
        _tell(job, state or ("COMPLETED" if process.returncode == 0 else "FAILED"))
    return again


def _tell(job: str, state: str) -> None:
    temporary = STATE / f".{job}"
    temporary.write_text(state)
    temporary.replace(STATE / f"{job}.state")


def _signal(job: str, signum: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(int((STATE / f"{job}.task").read_text()), signum)


def srun(*arguments: str) -> None:
    given = list(arguments)
    streams = {"--output": 1, "--error": 2}
    job = os.environ["SLURM_JOB_ID"]
    array, _, index = job.partition("_")
    while given[0].startswith("--"):
        flag = given.pop(0)
        if flag in streams:
            path = given.pop(0)
            for pattern, value in (("%A", array), ("%a", index), ("%j", job), ("%t", "0")):
                path = path.replace(pattern, value)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, streams[flag])
    (STATE / f"{job}.task").write_text(str(os.getpid()))
    os.execvp(given[0], given)


def sacct(*arguments: str) -> None:
    print("JobID|State|NodeList")
    for path in sorted(STATE.glob("*.state")):
        print(f"{path.stem}|{path.read_text()}|here")


def scontrol(what: str, job: str) -> None:
    order(STATE, job, what)


def scancel(job: str, *arguments: str) -> None:
    if arguments[:1] == ("--signal",):
        _signal(job, getattr(signal, f"SIG{arguments[1].removeprefix('SIG')}"))
    else:
        order(STATE, job, "cancel")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
