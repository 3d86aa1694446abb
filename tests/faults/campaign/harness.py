"""A fork server for commands: each case runs in a process of its own that has everything imported already."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from hsw import train
from hsw.run.checkpoint import list_checkpoints, load_newest
from tests.runs import session_members

SLOW = 60.0  # seconds that a case may take on a loaded machine


class Broken(AssertionError):
    """A case did not survive."""


@dataclass
class Process:
    """A command that was forked.

    Attributes:
        pid: Of the process, which leads a session of its own.
        out, err: Files of what it says.
        begin: When it was started, of time.monotonic().
    """

    pid: int
    out: Path
    err: Path
    begin: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = SLOW) -> int:
        """Its exit code, negative for a signal; it and whatever it started must be gone soon after."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.begin > seconds:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise Broken(f"did not end within {seconds:g} s")
            time.sleep(0.005)
        end = time.monotonic() + 5.0
        while left := session_members(self.pid):
            if time.monotonic() > end:
                for one in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
                raise Broken(f"left {len(left)} processes behind")
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(status)

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)


def fork(place: Path, *arguments: str, main: Callable[[], None] = train.cli, before: Any = lambda: None) -> Process:
    """Start a command.

    Args:
        place: A folder for what it says.
        arguments: Of the command.
        main: The command.
        before: Called in the new process first, when its streams are files.
    """
    out, err = place / "out.txt", place / "err.txt"
    pid = os.fork()
    if pid:
        return Process(pid, out, err)
    code = 70
    try:
        os.setsid()
        for descriptor, path in ((1, out), (2, err)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)  # type: ignore[misc]
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        GlobalHydra.instance().clear()
        sys.argv = ["hsw-train", *arguments]
        before()
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def limit(kind: int, amount: int) -> Callable[[], None]:
    """What sets a limit of the process's resources."""

    def set_limit() -> None:
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (amount, hard))

    return set_limit


def hold(condition: bool, message: str) -> None:
    if not condition:
        raise Broken(message)


def check_end(process: Process, code: int, codes: set[int], run: Path) -> None:
    """What holds after every case: a code that fits, one sentence for it, and a folder that can be read."""
    err = process.err.read_text(errors="replace") if process.err.is_file() else ""
    hold(code in codes, f"code {code} is none of {sorted(codes)}: {err[-300:]}")
    said = [line for line in err.splitlines() if line.startswith("hsw: ")]
    if code > 0 and os.path.isfile(process.err):
        hold(len(said) == 1, f"code {code} with {len(said)} sentences: {err[-300:]}")
    hold("Traceback" not in err, f"a traceback: {err[-600:]}")
    check_folder(run, code)


def check_folder(run: Path, code: int | None = None) -> None:
    """A run folder's metrics parse, its checkpoints load, and its status agrees with the exit code."""
    if (run / "metrics.jsonl").is_file():
        for line in (run / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
    if list_checkpoints(run / "checkpoints") and code is not None:
        load_newest(run / "checkpoints")
    if (run / "status.json").is_file():
        status = json.loads((run / "status.json").read_bytes())
        if code is not None and code >= 0 and status["status"] != "running":
            hold(status["exit_code"] == code, f"status.json says {status['exit_code']}, and the code is {code}")
        if code == 0:
            hold(status["status"] == "done", f"code 0, and status.json says {status['status']}")
