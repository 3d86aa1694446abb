"""A job of a sweep: whatever it ends with becomes its row in the table, and the sweep goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from hsw import deadline
from hsw.cli.main import describe
from hsw.errors import Interrupted
from hsw.output import one_line
from hsw.run.signals import deaf
from hsw.run.status import DONE_BEFORE, JobOutcome
from hsw.sweep.mailbox import VARIABLE, Mailbox

log = logging.getLogger("hsw")


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return VARIABLE in os.environ


def run_job(run: Callable[[], JobOutcome], name: str, number: int, fail_fast: bool) -> None:
    """Run a job.

    Args:
        run: Runs it, and tells how it went; raises what kept it from beginning.
        name: Of its folder.
        number: Its place in the sweep.
        fail_fast: If it fails, no other starts.
    """
    mailbox = Mailbox.here()
    if mailbox.stopped() is not None:
        return
    again = mailbox.again(number)
    mailbox.begin(number)
    before = signal.getsignal(signal.SIGTERM)
    began = False
    try:
        with stoppable():
            outcome = run()
        began = True
    except (Exception, KeyboardInterrupt) as error:
        message, code = describe(error)
        outcome = JobOutcome("failed", code, message, cause=error)
    stop = outcome.cause
    if isinstance(stop, KeyboardInterrupt):
        outcome.status, outcome.note = "interrupted", outcome.error
        signum = getattr(stop, "exit_code", 130) - 128
        handler = signal.getsignal(signal.SIGUSR2)
        if signum == signal.SIGUSR2 and callable(handler):
            try:
                handler(signum, None)  # submitit's: queues the job again and ends this process
            except Exception as error:  # it was queued often enough
                outcome.note = str(error)
        if Mailbox.own:  # it was this process that was asked to stop, not one worker of many
            mailbox.stop(signum)
    elif stop is not None:
        outcome.note = outcome.error
        if began:
            log.error(outcome.error, exc_info=stop if str(outcome.error).startswith("unexpected ") else None)
        else:  # the folder with its log may be another's
            print(f"job {number}: {one_line(str(outcome.error))}", flush=True)
        if fail_fast:
            mailbox.stop(0)
    elif again and outcome.note == DONE_BEFORE:
        outcome.note = None  # by the sweep that this is
    outcome.job = name
    mailbox.end(number, outcome)
    if _is_worker():
        signal.signal(signal.SIGTERM, before)
    asked = getattr(stop, "exit_code", 0) == 128 + signal.SIGTERM
    if asked and mailbox.stopped() is None and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        sys.exit(128 + signal.SIGTERM)  # not by the sweep: SLURM cancels the job, or queues it again. No result, then


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While a run is being built, a signal stops it; while it trains, the agent sees to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's
        asked.append(signal.SIGHUP)
    cluster = [signal.SIGUSR2] if callable(signal.getsignal(signal.SIGUSR2)) else []  # before it queues a job again

    def handle(signum: int, frame: FrameType | None) -> None:
        deadline.heard(signum)
        if _late is not None:
            _late.append(signum)
            return
        if deaf():
            return
        for other in (*asked, *cluster):  # a terminal's, and then the sweep's own
            signal.signal(other, signal.SIG_IGN)
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum
        deadline.hurry(128 + signum)  # an environment may take the Interrupted for one of its own errors
        raise Interrupted(f"stopped by signal {signum} before training", signum)

    global _late
    _late = None
    previous = {signum: signal.signal(signum, handle) for signum in (*asked, *cluster)}
    try:
        yield
    finally:
        deadline.no_hurry()
        deadline.free_logging()
        late = _late
        _late = None
        for signum, handler in previous.items():
            # In a worker, SIGTERM waits until the row is written; and Ctrl-C, which also reaches workers that are idle,
            # is for the sweep to handle.
            ignored = in_sweep() and _is_worker() and signum not in cluster
            signal.signal(signum, signal.SIG_IGN if ignored else handler)
        if late and Mailbox.own:  # the job is done, and the sweep is not
            os.kill(os.getpid(), late[0])


_late: list[int] | None = None  # signals that came when there was nothing left to stop


def settled() -> None:
    """How the run went is certain: a signal that comes now changes nothing, or its status and its code would differ."""
    global _late
    _late = []


def _is_worker() -> bool:
    return Mailbox.own is None and threading.current_thread() is threading.main_thread()
