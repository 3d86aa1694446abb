"""A fork server for commands: each case runs in a process of its own that has everything imported already."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.core.global_hydra import GlobalHydra

from hsw import train
from tests.faults.campaign.checks import Broken, hold, shared_memory_of
from tests.runs import call, run_dir, tiny_run

SLOW = 60.0  # seconds that a command may take
GRACE = 5.0  # seconds in which all that a command has started must be gone
_SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER
_SIGNALS = (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Within the body, what a command leaves behind becomes a child of this process, whatever session it is in."""
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those which they have; zombies too."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(word) for word in path.read_text().split()}
    return found.union(*(descendants(child) for child in found))


def carrying(word: str) -> list[int]:
    """Processes that have a word among their environment variables."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def warm(*recipes: str) -> None:
    """Train a moment in this process, so that what is imported on the way is there in every fork."""
    torch.set_num_threads(1)
    with scratch() as place:
        for recipe in recipes:
            done = call(*tiny_run(recipe), "num_train_steps=64", run_dir(place / recipe))
            hold(done.code == 0, f"{recipe} cannot be trained: {done.err}")
    servers: Any = multiprocessing.forkserver._forkserver, multiprocessing.resource_tracker._resource_tracker
    for server in servers:
        server._stop()  # a fork would take it for its own


def crowded() -> float:
    """By how much longer everything may take, because others use this machine too: processes that want to run for
    each core, beyond the two that a case may have."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 2)


@dataclass
class Process:
    """A command that was forked.

    Attributes:
        pid: Of the process, which leads a session of its own.
        out, err: Files of what it says.
        others: Processes that were there before.
        begin: When it was started, of time.monotonic().
    """

    pid: int
    out: Path
    err: Path
    others: set[int]
    begin: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = SLOW) -> int:
        """Its exit code, negative for a signal; whatever it started, and its shared memory, must be gone soon after.

        Args:
            seconds: That it may take, on a machine that nobody else uses.

        Raises:
            Broken: If something does not end.
        """
        seconds *= crowded()
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.begin > seconds:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self._end_left()
                raise Broken(f"did not end within {seconds:g} s")
            time.sleep(0.004)
        end = time.monotonic() + GRACE * crowded()
        while left := self._left():
            if time.monotonic() > end:
                told = [_command_of(pid) for pid in left]
                self._end_left()
                raise Broken(f"left {len(left)} processes behind: {', '.join(told)}")
            time.sleep(0.01)
        while segments := shared_memory_of(self.pid):
            hold(time.monotonic() < end, f"left {segments} in shared memory")
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(status)

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def _left(self) -> set[int]:
        """What it started and is still there; dead ones that became ours are buried."""
        left = descendants(os.getpid()) - self.others
        for pid in list(left):
            with contextlib.suppress(ChildProcessError):  # not ours, but one of ours'
                if os.waitpid(pid, os.WNOHANG)[0]:
                    left.discard(pid)
        return left

    def _end_left(self) -> None:
        while left := self._left():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def fork(place: Path, *arguments: str, main: Callable[[], Any] = train.cli, before: Any = lambda: None) -> Process:
    """Start a command.

    Args:
        place: A folder for what it says.
        arguments: Of the command.
        main: The command.
        before: Called in the new process first, when its streams are files.
    """
    out, err = place / "out.txt", place / "err.txt"
    others = descendants(os.getpid())
    pid = os.fork()
    if pid:
        return Process(pid, out, err, others)
    code = 70
    try:
        os.setsid()
        faulthandler.disable()  # pytest's
        configured: Any = multiprocessing.current_process()
        configured._config.pop("tempdir", None)  # the server's; a killed run's guardian deletes its own
        for descriptor, path in ((1, out), (2, err)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)  # type: ignore[misc]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for signum in _SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        GlobalHydra.instance().clear()
        sys.argv = ["hsw-train", *arguments]
        before()
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End a forked process as an interpreter ends, which os._exit alone does not, and see no more of the server."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    except BaseException:
        traceback.print_exc()
    finally:
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


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
    return str(pid)
