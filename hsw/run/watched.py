"""A run's side of its guardian, see hsw.run.guardian."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hsw import deadline, ending
from hsw.errors import ConfigError, EnvError
from hsw.run import guardian
from hsw.run.folder import RunFolder, owner_of
from hsw.run.status import JobOutcome, write_status

log = logging.getLogger("hsw")

_guardian: Guardian | None = None


class Guardian:
    """The process beside this one, and the thread that listens to it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        mark = guardian.own_mark(self.pid)
        os.environ[guardian.MARK] = ":".join(filter(None, [os.environ.get(guardian.MARK), mark]))
        signals, self._signals = os.pipe()
        news, self._news = os.pipe()
        listen, thread = os.pipe()
        self._listen = listen
        os.set_blocking(self._signals, False)
        places = [str(end) for end in (signals, news, thread)]
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH", "TMPDIR") if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__, str(self.pid), mark, *places],
                pass_fds=(signals, news, thread),
                env=kept,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            for end in (signals, news, thread):
                os.close(end)
        threading.Thread(target=self._obey, name="guardian", daemon=True).start()
        self._previous = -1
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)

    def tell(self, **news: Any) -> None:
        """What the guardian should know."""
        with contextlib.suppress(OSError):
            os.write(self._news, json.dumps(news).encode() + b"\n")

    def heard(self, signum: int) -> None:
        """Python's handler of a signal runs."""
        with contextlib.suppress(OSError):
            os.write(self._signals, bytes([guardian.HEARD + signum]))

    def _obey(self) -> None:
        while word := os.read(self._listen, 2):
            signum, body = word[-1], deadline.running()
            if body is None:
                with contextlib.suppress(OSError):
                    os.write(self._signals, bytes([guardian.BUSY]))
                time.sleep(1.0)
            elif signum == signal.SIGALRM:
                sentence = f"{body.what} hangs in C, where no alarm reaches it, for more than {body.limit:g} s"
                ending.end_now(EnvError.exit_code, sentence)
            else:
                signum = signal.SIGTERM if signum == signal.SIGHUP else signum
                ending.end_now(128 + signum, f"stopped by signal {signum} while {body.what} hangs in C")

    def close(self) -> None:
        self.tell(done=True)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._previous)
        os.close(self._news)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(2.0)
        os.close(self._signals)


@contextlib.contextmanager
def guarded() -> Iterator[Guardian | None]:
    """Within the body, this process has a guardian; None where there is none to be had."""
    global _guardian
    if _guardian is not None and _guardian.pid == os.getpid():
        yield _guardian
        return
    before = os.environ.get(guardian.MARK)
    try:
        _guardian = Guardian()
    except OSError:  # no process, or no descriptor, to spare
        yield None
        return
    deadline.on_heard(_guardian.heard)
    try:
        yield _guardian
    finally:
        deadline.on_heard(None)
        _guardian.close()
        _guardian = None
        os.environ.pop(guardian.MARK)
        if before:
            os.environ[guardian.MARK] = before


def current() -> Guardian | None:
    """This process's guardian."""
    return _guardian if _guardian is not None and _guardian.pid == os.getpid() else None


def end_orphan(owner: int) -> bool:
    """End the process that owns a run folder, if what had started it is gone. Returns whether it was such a one.

    It has a moment to end by itself: its guardian may be about to end it, or it may be saving.
    """
    ancestors = guardian.marks_of(owner)
    if not ancestors or all(map(guardian.is_alive, ancestors)):
        return False
    begin = guardian.started(owner)
    for signum, patience in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(OSError):
            os.kill(owner, signum)
        end = time.monotonic() + patience
        while guardian.started(owner) == begin and not guardian.is_zombie(owner) and time.monotonic() < end:
            time.sleep(0.05)
    return True


def own_folder(path: Path) -> RunFolder:
    """Own a run folder; a process that a killed sweep or run left in it is waited for, or ended, and that is said.

    Raises:
        ConfigError: If another process owns it and is no such one.
        ResourceError: If it cannot be written.
    """
    try:
        return RunFolder(path)
    except ConfigError:
        owner = owner_of(path)
        if owner is None:
            raise
        alive = bool(guardian.started(owner)) and not guardian.is_zombie(owner)
        if alive and not end_orphan(owner):
            raise
        log.warning("%s was in use by process %d, which a killed run left behind; that has ended", path, owner)
    end = time.monotonic() + 5.0
    while True:  # a fork of the owner's may hold the lock for a moment more
        try:
            return RunFolder(path)
        except ConfigError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class LastWords:
    """What is said and written down of a run that is ended from outside its loop.

    Args:
        folder: Of the run.
        status: Its status.json while it runs.
    """

    def __init__(self, folder: Path, status: dict[str, Any]) -> None:
        self.folder, self.status = folder, status
        self.agent: Any = None  # once there is one

    def __call__(self, code: int, sentence: str) -> str:
        outcome = JobOutcome("interrupted" if code > 128 else "failed", code)
        saved = None
        if self.agent is not None:
            saved = self.agent.services.saved_step
            outcome.steps, outcome.score = self.agent.step, self.agent.last_score
            outcome.seconds = round(self.agent.services.logger.elapsed, 3)
            lost = self.agent.step - (saved or 0)
            kept = f"the last checkpoint is of step {saved}" if saved is not None else "there is no checkpoint"
            sentence = f"{sentence}; {kept}, and {lost} steps are lost"
        outcome.error = sentence
        write_status(self.folder, self.status | outcome.as_status())
        return sentence


@contextlib.contextmanager
def watched(folder: Path, status: dict[str, Any]) -> Iterator[LastWords]:
    """Within the body, a run has a guardian, and its sudden end is told."""
    words = LastWords(folder, status)
    with guarded() as beside, ending.witness(words):
        if beside:
            beside.tell(status_path=str((folder / "status.json").absolute()), status=status, saved=None)
        try:
            yield words
        finally:
            if beside:
                beside.tell(status_path=None)


def tell_saved(step: int) -> None:
    """A checkpoint was written."""
    if beside := current():
        beside.tell(saved=step)
