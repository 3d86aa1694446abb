"""A sweep around its jobs: which there are, that one's failure is not the others', and the table at the end.

Jobs may run in other processes, and on other machines that see the same files (Hydra's launchers). So what a job has to
say to the sweep it writes into a folder of notes, whose path every job finds in its environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hsw.errors import Interrupted, SweepError
from hsw.faces import JobError, describe
from hsw.naming import job_name
from hsw.outcomes import COLUMNS, as_csv, as_text
from hsw.run.settings import CHANGEABLE
from hsw.run.status import write_json

log = logging.getLogger("hsw")

_NOTES = "HSW_SWEEP_NOTES"
_STOP = "stop"  # the number of the signal that stopped the sweep, or 0 for a failure with fail_fast


class Sweep:
    """The sweep that this process runs.

    Args:
        folder: Of the study.
        jobs: Names of the jobs' folders, in the order of their numbers.
    """

    def __init__(self, folder: Path, jobs: list[str]) -> None:
        self.folder, self.jobs = folder, jobs
        host = socket.gethostname()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".notes-{host}-*"):  # by a sweep that was killed
            if not _alive(int(left.name.rpartition("-")[2])):
                shutil.rmtree(left, ignore_errors=True)
        self.notes = folder / f".notes-{host}-{os.getpid()}"
        shutil.rmtree(self.notes, ignore_errors=True)
        self.notes.mkdir()
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Between jobs, or while they run in other processes: no further one starts, and those that run save."""
        if self._stopped() and signum == signal.SIGINT:
            raise KeyboardInterrupt  # whoever asks twice has waited long enough
        (self.notes / _STOP).write_text(str(signum))
        for path in self.notes.glob("*.pid"):
            host, pid = path.read_text().split()
            if host == socket.gethostname() and int(pid) != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)

    def _stopped(self) -> int:
        """The signal that did, or 0."""
        stop = self.notes / _STOP
        return int(stop.read_text()) if stop.exists() else 0

    def close(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        shutil.rmtree(self.notes, ignore_errors=True)

    def outcomes(self) -> list[dict[str, Any]]:
        """One row per job, with COLUMNS."""
        rows = []
        for number, job in enumerate(self.jobs):
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            try:
                row |= json.loads((self.notes / f"{number}.json").read_bytes())
            except FileNotFoundError:
                lost = (self.notes / f"{number}.pid").exists()
                row |= {"status": "failed", "exit_code": 5, "note": "its process died"} if lost else {}
            rows.append(row | {"job": job, "status": row["status"] or "not started"})
        return rows

    def conclude(self, error: BaseException | None) -> None:
        """Show and write the table.

        Raises:
            Interrupted: If a signal stopped the sweep.
            SweepError: If a job failed.
        """
        rows = self.outcomes()
        if error is not None and all(row["status"] == "not started" for row in rows):
            return  # the command line is wrong, and the error says how
        print(as_text(rows), flush=True)
        path = self.folder / "jobs.csv"
        with contextlib.suppress(OSError):
            path.write_text(as_csv(rows))
        failed = [row for row in rows if row["status"] == "failed"]
        again = "the same command goes on where it stopped"
        if signum := self._stopped():
            raise Interrupted(f"the sweep was stopped by signal {signum}; {again}", signum)
        if failed:
            raise SweepError(
                f"{len(failed)} of {len(rows)} jobs failed, the first: {failed[0]['job']}: {failed[0]['note']} "
                f"(all in {path})",
                failed[0]["exit_code"] or 1,
            )
        if error is None and any(row["status"] == "interrupted" for row in rows):
            raise Interrupted(f"jobs were interrupted; {again}", signal.SIGTERM)


_current: Sweep | None = None


class SweepCallback(Callback):
    """Hydra's news of a sweep that begins. Its jobs are named by what varies between them."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self._begin(config)
        except Exception as error:
            raise JobError from error  # Hydra would warn, and go on without

    def _begin(self, config: DictConfig) -> None:
        global _current
        overrides = OmegaConf.to_container(config.hydra.overrides.task)
        assert isinstance(overrides, list)
        params = [f"{key}={value}" for key, value in (OmegaConf.select(config, "hydra.sweeper.params") or {}).items()]
        parsed = OverridesParser.create().parse_overrides([*params, *overrides])
        jobs = BasicSweeper.split_arguments(parsed, None)[0]
        values: dict[str, set[str]] = {}
        for job in jobs:
            for override in job:
                values.setdefault(override.partition("=")[0], set()).add(override)
        same = [key for key, seen in values.items() if len(seen) == 1]
        if len(same) == len(values):  # one job
            same = [key for key in values if key in ("experiments", "budget", *CHANGEABLE)]
        _current = Sweep(Path(config.hydra.sweep.dir).absolute(), [job_name(job, same) for job in jobs])
        with read_write(config), open_dict(config):  # every job is composed with these, in whatever process
            quoted = ",".join(_quote(key) for key in same)
            config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]")
            config.hydra.overrides.hydra.append(f"+hydra.job.env_set.{_NOTES}={_quote(str(_current.notes))}")


def _quote(text: str) -> str:
    """For Hydra's grammar."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Around Hydra: the table of a sweep that ran within, whatever became of it, and its exit code."""
    global _current
    _current = None
    error: BaseException | None = None
    try:
        try:
            yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            if _current is not None:
                _current.conclude(error)
    finally:
        if _current is not None:
            _current.close()


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return _NOTES in os.environ


def run_job(train: Callable[[dict[str, Any]], None], number: int, fail_fast: bool) -> None:
    """Run a job; whatever it ends with becomes its row in the table, and the sweep goes on.

    Args:
        train: Trains, and fills in the row.
        number: The job's.
        fail_fast: If it fails, no other starts.
    """
    notes = Path(os.environ[_NOTES])
    if (notes / _STOP).exists():
        return
    pid = notes / f"{number}.pid"
    pid.write_text(f"{socket.gethostname()} {os.getpid()}")
    row: dict[str, Any] = {}
    try:
        with _stoppable():
            train(row)
    except KeyboardInterrupt as stop:
        signum = getattr(stop, "exit_code", 130) - 128
        handler = signal.getsignal(signal.SIGUSR2)
        if signum == signal.SIGUSR2 and callable(handler):
            handler(signum, None)  # submitit's: queues the job again and ends this process
        message, code = describe(stop)
        row |= {"status": "interrupted", "exit_code": code, "note": message}
        if _current is not None:  # it was this process that was asked to stop, not one worker of many
            (notes / _STOP).write_text(str(signum))
    except Exception as error:
        message, code = describe(error)
        if row:
            log.error(message, exc_info=message.startswith("unexpected "))
        else:  # it never began, and the folder with its log may be another's
            print(f"job {number}: {message}", flush=True)
        row |= {"status": "failed", "exit_code": code, "note": message}
        if fail_fast:
            (notes / _STOP).write_text("0")
    write_json(notes / f"{number}.json", row)
    pid.unlink()


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """While a job is being built, a signal stops it; while it trains, the agent sees to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by signal {signum} before training", signum)

    previous = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        if _current is None:  # a worker: Ctrl-C also reaches those that are idle, and is for the sweep to handle
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() if sys.platform == "linux" else True
