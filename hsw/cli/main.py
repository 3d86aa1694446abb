"""How a command runs, and how an error reaches a person."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from hsw.cli.explain import explain
from hsw.errors import ConfigError, HswError, Interrupted
from hsw.secrets import redact


class JobError(BaseException):
    """Carries a job's error, its cause, past Hydra."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong with a command line in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is")


def describe(error: BaseException, arguments: Sequence[str] | None = None) -> tuple[str, int]:
    """An error as one sentence without secrets, and an exit code; of a command line's arguments, the process' own if
    None."""
    message, code = _describe(error, arguments)
    return redact(message), code


def _describe(error: BaseException, arguments: Sequence[str] | None) -> tuple[str, int]:
    if isinstance(error, Interrupted | HswError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted before anything was saved", 130
    if isinstance(error, MemoryError):
        return "out of memory", 6
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):  # some of Hydra's are OSErrors
        assert isinstance(error, Exception)
        return explain(error, sys.argv[1:] if arguments is None else arguments), ConfigError.exit_code
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return f"cannot use{place}: {error.strerror or error}", 6
    return f"unexpected {type(error).__name__}: {error}", 1


def run_main(main: Callable[[], None]) -> None:
    """Run a command; an error ends the process with one sentence and its exit code."""
    try:
        try:
            main()
        except JobError as job:
            raise (job.__cause__ or job) from None
    except BrokenPipeError:  # whoever read the output has seen enough
        os._exit(0)
    except (Exception, KeyboardInterrupt) as error:
        message, code = describe(error)
        print(f"hsw: {message}", file=sys.stderr, flush=True)
        if code == 1 and message.startswith("unexpected "):
            traceback.print_exc()
        sys.exit(code)
