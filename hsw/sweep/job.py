"""A job of a sweep: whatever it ends with becomes its row in the table, and the sweep goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from hsw.cli.main import describe
from hsw.errors import Interrupted
from hsw.sweep.mailbox import VARIABLE, Mailbox

log = logging.getLogger("hsw")


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return VARIABLE in os.environ


def run_job(train: Callable[[dict[str, Any]], None], name: str, number: int, fail_fast: bool) -> None:
    """Run a job.

    Args:
        train: Trains, and fills in the row.
        name: Of its folder.
        number: Its place in the sweep.
        fail_fast: If it fails, no other starts.
    """
    mailbox = Mailbox.here()
    if mailbox.stopped() is not None:
        return
    mailbox.begin(number)
    row: dict[str, Any] = {}
    before = signal.getsignal(signal.SIGTERM)
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
        if Mailbox.own:  # it was this process that was asked to stop, not one worker of many
            mailbox.stop(signum)
    except Exception as error:
        message, code = describe(error)
        if row:
            log.error(message, exc_info=message.startswith("unexpected "))
        else:  # it never began, and the folder with its log may be another's
            print(f"job {number}: {message}", flush=True)
        row |= {"status": "failed", "exit_code": code, "note": message}
        if fail_fast:
            mailbox.stop(0)
    mailbox.end(number, {**row, "job": name})
    if _is_worker():
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """While a job is being built, a signal stops it; while it trains, the agent sees to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):  # a terminal's, and then the sweep's own
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(f"stopped by signal {signum} before training", signum)

    previous = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            # In a worker, SIGTERM waits until the row is written; and Ctrl-C, which also reaches workers that are idle,
            # is for the sweep to handle.
            signal.signal(signum, signal.SIG_IGN if _is_worker() else handler)


def _is_worker() -> bool:
    return Mailbox.own is None and threading.current_thread() is threading.main_thread()
