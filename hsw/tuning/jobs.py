"""Runs as jobs, told of by a sweep's mailbox: skipped when done, resumed when broken, tried again when killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsw.errors import ResourceError
from hsw.run.paste import hydra_quoted
from hsw.run.status import JobOutcome
from hsw.sweep.lasting import TRIES
from hsw.sweep.mailbox import NUMBER, VARIABLE, Mailbox

# Imported once in each worker; a job imports what it needs beside.
_COMMAND = ("hsw.train", "hsw.build", "hsw.done", "hsw.learners", "hsw.cli.summary", "hsw.run.watched")


class Jobs:
    """The processes in which a tuner's jobs run.

    Args:
        folder: Of the study.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.mailbox = Mailbox.create(folder)
        except OSError as error:
            raise ResourceError(f"cannot write into {folder}: {error.strerror or error}") from error
        self._numbers = itertools.count()
        self._workers: dict[int, subprocess.Popen[str]] = {}

    def stopped(self) -> bool:
        """Whether no further job starts."""
        return self.mailbox.stopped() is not None

    def stop(self, signum: int) -> None:
        """No further job starts, and those that run save and end."""
        self.mailbox.stop(signum)
        for pid in self.mailbox.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def run(self, slot: int, overrides: Sequence[str], folder: Path) -> JobOutcome:
        """Run a job to its end, whatever that is.

        Args:
            slot: Which of the workers.
            overrides: Of the run.
            folder: The job's.
        """
        for _ in range(TRIES):
            if self.stopped():
                break
            outcome = self._try(slot, [*overrides, f"hydra.run.dir={hydra_quoted(str(folder.absolute()))}"])
            if outcome is not None:
                return outcome
        if self.stopped():
            return JobOutcome("interrupted")
        return JobOutcome("failed", 5, f"its process died {TRIES} times")

    def close(self) -> None:
        for worker in self._workers.values():
            worker.kill()
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()
        self.mailbox.delete()

    def _try(self, slot: int, arguments: Sequence[str]) -> JobOutcome | None:
        """How a job ended; None if its process died, or was stopped."""
        number = next(self._numbers)
        said = self.mailbox.folder / f"{number}.said"
        environment = {VARIABLE: str(self.mailbox.folder), NUMBER: str(number)}
        answer = self._ask(slot, {"arguments": arguments, "environment": environment, "output": str(said)})
        if self.mailbox.told(number):
            outcome = self.mailbox.outcome(number)
            return None if outcome.status == "interrupted" else outcome
        if answer.get("code", -1) > 0 and not self.stopped():  # refused before it was a job
            return JobOutcome("failed", answer["code"], _sentence(said))
        return None

    def _ask(self, slot: int, request: dict[str, Any]) -> dict[str, Any]:
        """What a worker answers; nothing if it died."""
        worker = self._workers.get(slot)
        if worker is None or worker.poll() is not None:
            worker = self._workers[slot] = subprocess.Popen(
                [sys.executable, "-m", "hsw.tuning.worker", *_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert worker.stdin is not None
        assert worker.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            print(json.dumps(request), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
            return dict(json.loads(line)) if line else {}
        worker.kill()
        return {}


def _sentence(path: Path) -> str:
    """What a command said last that is hsw's own."""
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").splitlines()
        found = [line.removeprefix("hsw: ") for line in lines if line.startswith("hsw: ")]
        return found[-1] if found else (lines[-1] if lines else "it ended without a word")
    return "it ended without a word"
