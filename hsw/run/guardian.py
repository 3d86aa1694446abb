"""A small process beside a run, for what the run's own process cannot do: notice that it hangs in C, or that it died.

Python's handlers of signals do not run while the main thread is in C. But the interpreter writes the number of each
signal into a pipe at once (signal.set_wakeup_fd), and here that pipe is read. A signal that asks the run to stop, or
that says that an environment is overdue, and that the run has not acknowledged for some seconds, ends the run: first
by a thread of its own, which knows how to say what is lost; where that thread does not get to run either, by SIGKILL.

When the run's process is gone, however it went, everything that it had started ends with it: processes carry a mark in
their environment variables. And what it left in shared memory is deleted.

The process runs this file alone, without the packages: nothing outside the standard library may be imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MARK = "HSW_FAMILY"  # the marks of all ancestors, colon-separated
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HEARD = 128  # plus a signal's number: Python handles it
STOP_PATIENCE, ALARM_PATIENCE, THREAD_PATIENCE = 7.0, 5.0, 1.5  # seconds
POKE, BUSY = b"!", 255


class Watch:
    """What the guardian knows of its run.

    Args:
        pid: Of the run's process.
        mark: That its children carry.
        signals: Where signals' numbers arrive, and what Python says of them.
        news: Where lines of JSON arrive: where the run's status is, its last checkpoint, folders and processes that are
            to go with it; its end is the process's.
        thread: Where the run's thread listens.
    """

    def __init__(self, pid: int, mark: str, signals: int, news: int, thread: int) -> None:
        self.pid, self.mark, self.signals, self.news, self.thread = pid, mark, signals, news, thread
        self.unheard: dict[int, float] = {}  # signals, and when they came
        self.poked: float | None = None
        self.told: dict[str, Any] = {}
        self._line = b""
        self._ends: list[int] = []  # readable when the run's process is gone
        with contextlib.suppress(OSError, AttributeError):  # Linux
            self._ends = [os.pidfd_open(pid)]

    def run(self) -> None:
        sweep_shared_memory()  # of those whose guardian was killed with them
        while not self.told.get("done") and self._lives():
            # A process that the run has forked may hold the other ends open: their closing would not tell of its end.
            ready, _, _ = select.select([self.signals, self.news, *self._ends], [], [], self._wait())
            if self.news in ready:
                self._read_news()
            if self.signals in ready:
                self._read_signals()
            self._act()
        if not self.told.get("done"):
            end_family(self.mark)
            end_groups(**self.told.get("groups", {}))
            sweep_shared_memory()
            for path in self.told.get("temporary", ()):
                with contextlib.suppress(OSError):
                    remove(Path(path))

    def _lives(self) -> bool:
        return os.getppid() == self.pid

    def _wait(self) -> float | None:
        return 0.2 if self.unheard else None if self._ends else 1.0

    def _read_news(self) -> None:
        *lines, self._line = (self._line + os.read(self.news, 65536)).split(b"\n")
        for line in lines:
            self.told.update(json.loads(line))

    def _read_signals(self) -> None:
        now = time.monotonic()
        for byte in os.read(self.signals, 4096):
            if byte == BUSY:  # the thread runs, and the main thread is in no environment
                self.poked = None
                self.unheard = dict.fromkeys(self.unheard, now)
            elif byte >= HEARD:
                self.unheard.pop(byte - HEARD, None)
                self.poked = None
            elif byte == signal.SIGINT and now - self.unheard.get(byte, now) > 0.5:  # whoever asks twice
                self.unheard[byte] = now - STOP_PATIENCE
            elif byte in STOPS or byte == signal.SIGALRM:
                self.unheard.setdefault(byte, now)

    def _act(self) -> None:
        now = time.monotonic()
        if self.poked is not None:
            if now - self.poked > THREAD_PATIENCE:
                self._kill()
            return
        stopping = any(signum in STOPS for signum in self.unheard)
        for signum, since in self.unheard.items():
            patience = STOP_PATIENCE if signum in STOPS else ALARM_PATIENCE / (2 if stopping else 1)
            if now - since > patience:
                self.poked = now
                with contextlib.suppress(OSError):
                    os.write(self.thread, POKE + bytes([signum]))
                return

    def _kill(self) -> None:
        stop = [signum for signum in self.unheard if signum in STOPS]
        why = f"stopped by signal {stop[0]}: " if stop else ""
        saved = self.told.get("saved")
        lost = (
            f"the last checkpoint is of step {saved}, and what came after it is lost" if saved else "nothing is saved"
        )
        sentence = f"{why}the process hangs in C, where no signal reaches it, and is killed; {lost}"
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.write(2, f"hsw: {sentence}\n".encode(errors="backslashreplace"))
        if path := self.told.get("status_path"):
            status = {**self.told["status"], "status": "interrupted" if stop else "failed"}
            status |= {"exit_code": 128 + signal.SIGKILL, "error": sentence}
            with contextlib.suppress(OSError):
                temporary = Path(f"{path}.{os.getpid()}")
                temporary.write_text(json.dumps(status, indent=1) + "\n")
                temporary.replace(path)
        self.unheard.clear()
        self.poked = None


def end_family(mark: str) -> list[int]:
    """Kill every process of this machine that carries a mark. Returns their ids."""
    ended = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        if pid != os.getpid() and mark in marks_of(pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


def end_groups(leaders: Iterable[int] = (), session: int = 0) -> None:
    """Kill the processes of some groups of a session: programs that write their title over their mark."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            group, own = map(int, path.read_text().rpartition(")")[2].split()[2:4])
            if own == session and group in leaders:
                os.kill(int(path.parent.name), signal.SIGKILL)


def marks_of(pid: int) -> list[str]:
    """The marks that a process was started with, from the oldest ancestor's on."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(MARK.encode() + b"="):
                return entry.decode(errors="replace").partition("=")[2].split(":")
    return []


def own_mark(pid: int) -> str:
    """The mark of a process's children: its id, and when it started, which tells it from a later one of that id."""
    return f"{pid}-{started(pid)}"


def started(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def is_alive(mark: str) -> bool:
    """Whether the process whose children carry a mark is there."""
    pid, _, start = mark.partition("-")
    return pid.isdecimal() and started(int(pid)) == start and not is_zombie(int(pid))


def is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


# The names that torch, multiprocessing and joblib give, with their owners' ids: nothing else is touched.
_LEFT = re.compile(
    r"torch_(?P<torch>\d+)_\d+_\d+|pym-(?P<pym>\d+)-[a-z0-9_]{8}|(?:sem\.)?loky-(?P<loky>\d+)-[a-z0-9_]{8}"
    r"|joblib_memmapping_folder_(?P<joblib>\d+)_[0-9a-f]+_[0-9a-f]+"
)


def sweep_shared_memory(*folders: Path) -> list[str]:
    """Delete what dead processes of this user left in shared memory, and joblib's in temporary files.

    A process that has a dead one's id by now is taken for it, and what the dead one left stays.

    Args:
        folders: Where to look; by default where they are.

    Returns:
        The names.
    """
    swept = []
    for folder in folders or (Path("/dev/shm"), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            for path in list(folder.iterdir()):
                match = _LEFT.fullmatch(path.name)
                with contextlib.suppress(OSError):
                    if match and not started(int(match[match.lastgroup or 0])) and path.lstat().st_uid == os.getuid():
                        remove(path)
                        swept.append(path.name)
    return swept


def remove(path: Path) -> None:
    """Delete a file, or a folder of files."""
    if path.is_dir() and not path.is_symlink():
        for part in path.iterdir():
            part.unlink()
        path.rmdir()
    else:
        path.unlink()


if __name__ == "__main__":
    for each in (*STOPS, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(each, signal.SIG_IGN)
    Watch(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])).run()
