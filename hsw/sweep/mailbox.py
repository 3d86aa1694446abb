"""What the jobs of a sweep have to say to it: a folder of small files, whose path every job finds in its environment.

Jobs may run in other processes, and on other machines that see the same files (Hydra's launchers).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from hsw.errors import ResourceError
from hsw.run.guardian import is_zombie
from hsw.run.status import JobOutcome, write_json

VARIABLE = "HSW_SWEEP_NOTES"
NUMBER = "HSW_SWEEP_JOB"  # of a job that is launched again, whose place in the sweep its launcher does not know
DIED = "its process died"


class Mailbox:
    """A sweep's mailbox.

    Args:
        folder: Where they are.
    """

    own: Mailbox | None = None  # those of the sweep that this process runs

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outcomes: dict[int, JobOutcome] = {}  # of jobs that ran in this process

    @classmethod
    def create(cls, study: Path) -> Mailbox:
        """Begin the mailbox of a sweep, and delete those of sweeps that were killed."""
        host = socket.gethostname()
        study.mkdir(parents=True, exist_ok=True)
        for left in study.iterdir():
            owner = re.fullmatch(rf"\.notes-{re.escape(host)}-(\d+)", left.name)
            if owner and (int(owner[1]) == os.getpid() or not _alive(int(owner[1]))):
                shutil.rmtree(left, ignore_errors=True)
        folder = study / f".notes-{host}-{os.getpid()}"
        folder.mkdir()
        return cls(folder)

    @classmethod
    def here(cls) -> Mailbox:
        """The mailbox that a job writes into."""
        return cls.own or cls(Path(os.environ[VARIABLE]))

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- no further job ---------------------------------------------------------------------------------------------

    def stop(self, signum: int) -> None:
        """No further job starts: because of a signal, or of a failure if it is 0."""
        with contextlib.suppress(OSError):
            (self.folder / "stop").write_text(str(signum))

    def stopped(self) -> int | None:
        """The signal that stopped the sweep, 0 for a failure, None if it goes on."""
        with contextlib.suppress(FileNotFoundError):
            return int((self.folder / "stop").read_text() or 0)
        return None

    # -- jobs -------------------------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """A job begins in this process; what it told before, if a cluster queued it again, no longer counts."""
        with contextlib.suppress(OSError):
            (self.folder / f"{number}.json").unlink(missing_ok=True)
            (self.folder / f"{number}.pid").write_text(f"{socket.gethostname()} {os.getpid()}")

    def end(self, number: int, outcome: JobOutcome) -> None:
        """A job of this process ended so."""
        self._outcomes[number] = outcome
        with contextlib.suppress(ResourceError):
            write_json(self.folder / f"{number}.json", outcome.as_row())
        (self.folder / f"{number}.pid").unlink(missing_ok=True)

    def processes(self) -> list[int]:
        """Other processes of this host that jobs run in."""
        pids = [_pid_in(path) for path in self.folder.glob("*.pid")]
        return [pid for pid in pids if pid is not None and pid != os.getpid()]

    def began(self, number: int) -> bool:
        """Whether a job has begun, and did not end."""
        return (self.folder / f"{number}.pid").exists()

    def told(self, number: int) -> bool:
        """Whether a job has said how it ended."""
        return number in self._outcomes or (self.folder / f"{number}.json").exists()

    def forget(self, number: int) -> None:
        """A job whose process died is to begin again."""
        with contextlib.suppress(OSError):
            (self.folder / f"{number}.pid").replace(self.folder / f"{number}.again")

    def again(self, number: int) -> bool:
        """Whether a job has begun in this sweep before, in a process that is gone."""
        return any((self.folder / f"{number}.{kind}").exists() for kind in ("again", "pid"))

    def wait_for(self, numbers: Iterable[int]) -> None:
        """Wait until none of these jobs runs in another process of this host."""
        for number in numbers:
            path = self.folder / f"{number}.pid"
            while sys.platform == "linux" and (pid := _pid_in(path)) and pid != os.getpid() and _alive(pid):
                time.sleep(0.1)

    def outcome(self, number: int) -> JobOutcome:
        """How a job ended, or what can be said of it."""
        if number in self._outcomes:
            return self._outcomes[number]
        with contextlib.suppress(FileNotFoundError):
            return JobOutcome.from_row(json.loads((self.folder / f"{number}.json").read_bytes()))
        began = self.folder / f"{number}.pid"
        pid = _pid_in(began)
        if pid == os.getpid():
            return JobOutcome("interrupted", 130, note="interrupted at once")
        if pid is not None and _alive(pid):
            return JobOutcome("running", note=f"in process {pid}")
        if began.exists():
            return JobOutcome("failed", 5, note=DIED)
        return JobOutcome("not started")


def _pid_in(path: Path) -> int | None:
    """The process that a job runs in, if it is on this host."""
    with contextlib.suppress(OSError, ValueError):
        host, pid = path.read_text().split()
        return int(pid) if host == socket.gethostname() else None
    return None


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and not is_zombie(pid) if sys.platform == "linux" else True
