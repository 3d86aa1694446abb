"""Runs and sweeps that are killed, or asked to stop, at any moment, and go on as if nothing had been."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hsw.run.checkpoint import list_checkpoints
from tests.faults.campaign.checks import Broken, check_end, check_folder, check_same, hold
from tests.faults.campaign.server import SLOW, Process, crowded, descendants, fork, scratch
from tests.faults.campaign.store import BUDGET, EXACT, PLAIN, SETUPS, Accesses, Store
from tests.runs import ROOT, TINY, newest, run_dir

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Tried(NamedTuple):
    """A case that survived.

    Attributes:
        what: It was.
        exact: A run was killed, went on, and ended bit for bit as the undisturbed one.
    """

    what: str
    exact: bool = False


def kills(rng: random.Random, store: Store) -> Tried:
    """A run gets a signal at a moment of its time, or when it opens, makes, renames or deletes its nth file."""
    name = rng.choice((*SETUPS, *PLAIN))
    setup = SETUPS[name]
    signum, moment, accesses = rng.choice(SIGNALS), rng.random(), rng.random() < 0.5
    times = 2 if rng.random() < 0.2 else 1
    what = f"{name} by {signal.Signals(signum).name} at {moment:.2f} of its {'accesses' if accesses else 'time'}"
    whole = store.run(*setup.arguments)
    facts = store.facts(whole)
    with scratch() as place:
        run = place / "run"
        command: tuple[str, ...] = (*setup.arguments, run_dir(run))
        killed = False
        for _ in range(times):
            last = 1 + int(moment * facts["accesses"])
            before = partial(Accesses().count, last, signum) if accesses else partial(int)
            process = fork(place, *command, before=before)
            if not accesses:
                _sleep(process, moment * facts["seconds"])
                process.kill(signum)
            code = process.wait(20.0)
            ends = {0, -signum, 128 + signum, 143 if signum == signal.SIGHUP else 128 + signum}
            hold(code in ends, f"{what}: code {code}: {process.err.read_text()[-300:]}")
            check_folder(run, code if code >= 0 else None)
            killed = killed or code != 0
            if not list_checkpoints(run / "checkpoints"):
                return _without_checkpoint(place, run, what)
            command, moment = (f"resume={run}", "allow=[tests]", "quiet=true"), rng.random()
        again = fork(place, *command)
        check_end(again.wait(), {0}, again.err, run)
        if setup.exact:
            check_same(run, whole, what)
        else:
            hold(newest(run)["step"] >= BUDGET, f"{what}: ended at step {newest(run)['step']}")
    return Tried(what, setup.exact and killed)


def _without_checkpoint(place: Path, run: Path, what: str) -> Tried:
    """There is nothing to go on from: that is said, and nothing begins anew."""
    again = fork(place, f"resume={run}", "allow=[tests]", "quiet=true")
    check_end(again.wait(), {2, 7}, again.err, None)
    return Tried(f"{what}, before a checkpoint")


def _sleep(process: Process, seconds: float) -> None:
    time.sleep(max(0.0, process.begin + seconds - time.monotonic()))


SWEEP = (*TINY, "num_train_steps=1000", "checkpoint_interval=100", "seed=1,2,3")


def sweeps(rng: random.Random, store: Store) -> Tried:
    """The main process of a sweep is killed: nothing of it is left after 5 s, and the same command ends as ever."""
    launcher, moment = rng.choice(("joblib", "basic")), rng.random()
    signum = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    what = f"a sweep of {launcher} by {signal.Signals(signum).name} at {moment:.2f} of its time"

    def command(folder: Path, launcher: str = "basic") -> tuple[str, ...]:
        jobs = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
        return ("--multirun", *SWEEP, f"hydra/launcher={launcher}", *jobs, f"hydra.sweep.dir={folder}")

    whole = store.folder(SWEEP, command)  # whatever the launcher, the jobs are the same
    # Workers of joblib's are interpreters of their own, which import everything.
    slower = 1.0 if launcher == "basic" else 2.5
    with scratch() as place:
        first = fork(place, *command(place / "sweep", launcher))
        _sleep(first, moment * slower * store.facts(whole)["seconds"])
        first.kill(signum)
        code = first.wait()  # and nothing is left
        hold(code in {0, -signum, 128 + signum}, f"{what}: code {code}: {first.err.read_text()[-300:]}")
        again = fork(place, *command(place / "sweep", launcher))
        check_end(again.wait(3 * SLOW), {0}, again.err, None)
        for seed in (1, 2, 3):
            check_folder(place / "sweep" / f"seed-{seed}", 0)
            check_same(place / "sweep" / f"seed-{seed}", whole / f"seed-{seed}", f"{what}, job {seed}")
        hold(_table(place / "sweep") == _table(whole), f"{what}: the table is {_table(place / 'sweep')}")
    return Tried(what, code != 0)


def _table(sweep: Path) -> list[dict[str, str]]:
    """The rows of jobs.csv, without what differs from time to time."""
    with (sweep / "jobs.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in ("job", "status", "return", "steps", "exit_code")} for row in rows]


def commands(rng: random.Random, store: Store) -> Tried:
    """The command line itself, in an interpreter of its own: it runs, or is killed and resumed, as any other."""
    name = rng.choice(PLAIN if rng.random() < 0.8 else EXACT)
    setup, moment, kill = SETUPS[name], rng.random(), rng.random() < 0.7
    streams = rng.choice(("", ">/dev/full 2>/dev/full", "2>&1 | head -1", ">&- 2>&-", "<&- >&-"))
    whole = store.run(*setup.arguments)
    what = f"python -m hsw.train of {name} {streams}, {f'killed at {moment:.2f}' if kill else 'undisturbed'}"
    with scratch() as place:
        run = place / "run"
        if kill:
            with (place / "said").open("w") as said:
                process = _start(said, *setup.arguments, run_dir(run))
                time.sleep(1.0 + moment * 2 * store.facts(whole)["seconds"])  # with the time of the imports
                process.kill()
                process.wait()
            _all_gone()
            check_folder(run)
        finished = kill and process.returncode == 0
        if not kill or list_checkpoints(run / "checkpoints"):
            arguments = (f"resume={run}", "allow=[tests]") if kill else (*setup.arguments, run_dir(run))
            words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "hsw.train", *arguments))
            script = f"set -o pipefail; {words} {streams}"
            done = subprocess.run(
                ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=SLOW * crowded()
            )
            hold(done.returncode == 0, f"{what}: code {done.returncode}: {done.stderr[-300:]}")
            _all_gone()
            check_folder(run, 0)
            check_same(run, whole, what)
    return Tried(what, kill and not finished)


def _start(said: Any, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hsw.train", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True)


def _all_gone(seconds: float = 5.0) -> None:
    """Nothing that was started is left, whoever's child it was."""
    end = time.monotonic() + seconds * crowded()
    while left := descendants(os.getpid()):
        for pid in list(left):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    left.discard(pid)
            except ChildProcessError:  # a child's child
                continue
        if left and time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise Broken(f"left {len(left)} processes behind")
        time.sleep(0.02)


KILLS: dict[str, tuple[Callable[[random.Random, Store], Tried], float]] = {
    "kills": (kills, 14),
    "sweeps": (sweeps, 0.8),
    "commands": (commands, 2.5),
}
