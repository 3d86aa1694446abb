"""How a command runs, and how an error reaches a person."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from hsw import ending
from hsw.cli.explain import explain
from hsw.errors import ConfigError, HswError, Interrupted
from hsw.output import one_line, secure_streams
from hsw.secrets import redact


class JobError(BaseException):
    """Carries a job's error, its cause, past Hydra."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong with a command line in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is")


def take_allow(parser: argparse.ArgumentParser) -> None:
    """Give a command --allow."""
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="trust a package")


def take_device(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Give a command --device; None is the run's."""
    parser.add_argument("--device", default=default, help=f"auto, cpu or cuda ({default or 'of the run'})")


def take_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Give a command --checkpoint."""
    parser.add_argument("--checkpoint", type=_checkpoint, default="last", help="last, best or a step (last)")


def _checkpoint(text: str) -> str | int:
    if text not in ("last", "best") and not text.isdecimal():
        raise ConfigError(f"--checkpoint={text} must be last, best or the step of one that was kept")
    return int(text) if text.isdecimal() else text


def describe(error: BaseException, arguments: Sequence[str] | None = None) -> tuple[str, int]:
    """An error as one sentence without secrets, and an exit code; of a command line's arguments, the process' own if
    None."""
    message, code = _describe(error, arguments)
    return redact(message), code


def _describe(error: BaseException, arguments: Sequence[str] | None) -> tuple[str, int]:
    if isinstance(error, Interrupted | HswError):
        return str(error), error.exit_code
    if any(isinstance(cause, KeyboardInterrupt) for cause in _behind(error)):
        return "interrupted before anything was saved", 130
    if isinstance(error, MemoryError) or is_allocation(error):
        return f"out of memory{allocation_size(error)}", 6
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no further thread can be started; raise the limits of processes and memory (ulimit -u, ulimit -v)", 6
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):  # some of Hydra's are OSErrors
        assert isinstance(error, Exception)
        return explain(error, sys.argv[1:] if arguments is None else arguments), ConfigError.exit_code
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return f"cannot use{place}: {error.strerror or error}", 6
    return f"unexpected {type(error).__name__}: {error}", 1


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it was raised for; where a library tidies up, an interruption may come out as its error."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_allocation(error: BaseException) -> bool:
    """Whether torch or NumPy got no memory, on whichever device."""
    text = str(error)
    words = ("can't allocate memory", "out of memory", "CUDA error: out of memory", "Cannot allocate memory")
    too_large = ("Storage size calculation overflowed", "array is too big", "Unable to allocate", "Invalid shape")
    shared = ("unable to resize file", "unable to mmap", "unable to open shared memory")  # what torch shares is a file
    return type(error).__name__ in ("OutOfMemoryError", "_ArrayMemoryError") or (
        isinstance(error, RuntimeError | ValueError | OSError)
        and any(word in text for word in (*words, *too_large, *shared))
    )


def allocation_size(error: BaseException) -> str:
    """What did not fit, if the error tells."""
    found = re.search(r"(?:you tried to allocate|Tried to allocate|Unable to allocate) ([\d.]+ \w+)", str(error))
    return f": {found[1]} are not to be had; lower the sizes of storage, network or batches" if found else ""


def run_main(main: Callable[[], None]) -> None:
    """Run a command; an error ends the process with one sentence and its exit code."""
    secure_streams()
    code = 0
    try:
        try:
            main()
        except JobError as job:
            raise _Job(job.__cause__ or job) from None
    except SystemExit as stop:  # argparse's
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as caught:
        error = caught.error if isinstance(caught, _Job) else caught
        message, code = describe(error)
        print(f"hsw: {one_line(message)}", file=sys.stderr, flush=True)
        if message.startswith("unexpected "):
            traceback.print_exception(error)
    _leave(code)


class _Job(BaseException):
    """A job's error, which may be a SystemExit that is not to end this process as one."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _leave(code: int) -> None:
    """End the process with a code, also where a thread that an environment has left would keep it alive."""
    if any(thread.is_alive() for thread in ending.strays) and _is_process():
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def _is_process() -> bool:
    """Whether the command is what this process is there for; a test calls it as a function."""
    return sys.stderr is sys.__stderr__
