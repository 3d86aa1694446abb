"""Functions called in processes of their own, so that what one of them leaves behind reaches no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hsw import ending
from hsw.env.place import user_frame


class ChildFailed(Exception):
    """A function raised in its process, or its process ended or hung.

    Attributes:
        error: What it raised, in words; empty if it ended or hung.
        kind: The error's class, by name.
        place: file:line in a person's own code; else empty.
        details: The traceback.
    """

    def __init__(self, message: str, kind: str = "", place: str = "", details: str = "") -> None:
        super().__init__(message)
        self.kind, self.place, self.details = kind, place, details


def in_child(function: Callable[..., Any], *args: Any, seconds: float = 60.0) -> Any:
    """Call a function in a process of its own, which begins as this one is now, and ends with all that it started.

    Raises:
        ChildFailed: If it raises, does not end in time, or its process dies.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args), daemon=False)
    sys.stdout.flush()
    sys.stderr.flush()
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise ChildFailed(f"did not end within {seconds:.0f} s")
        try:
            fine, answer = receiver.recv()
        except EOFError:
            process.join(5.0)
            raise ChildFailed(f"ended its process with exit code {process.exitcode}") from None
        if not fine:
            raise ChildFailed(*answer)
        return answer
    finally:
        receiver.close()
        if process.is_alive():
            process.join(0.2)
        with contextlib.suppress(OSError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _answer(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with contextlib.suppress(OSError):
        os.setsid()  # a group of its own, which ends with it
    os.dup2(2, 1)  # what it prints is not the report
    try:
        answer: tuple[bool, Any] = True, function(*args)
    except BaseException as error:
        told = " ".join(str(error).split())
        details = "".join(traceback.format_exception(error))
        answer = False, (told or type(error).__name__, type(error).__name__, user_frame(error) or "", details)
    try:
        sender.send(answer)
    except Exception as error:  # what was found cannot be sent
        sender.send((False, (f"{type(error).__name__}: {error}", type(error).__name__, "", "")))
    sender.close()
    ending.leave(0)
