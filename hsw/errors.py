"""Errors that end a run, each with the exit code that the process reports."""

from __future__ import annotations

from typing import Any


def words_of(error: BaseException, most: int = 300) -> str:
    """What an error says, in one line of at most so many characters."""
    return " ".join(str(error).split())[:most]


def shortened(value: Any) -> str:
    """A value as Python writes it, for an error's sentence: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class HswError(Exception):
    """A fault that one sentence explains.

    Attributes:
        details: A traceback for train.log, where the fault is in another's code; else empty.
    """

    exit_code = 1
    details: str = ""


class ConfigError(HswError, ValueError):
    """The configuration cannot work; nothing was started. Also raised by constructors and storages."""

    exit_code = 2


class EnvError(HswError):
    """An environment broke its contract.

    Args:
        message: Which environment did what, and where.
        details: The traceback, if it raised.
    """

    exit_code = 3

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details  # an attribute goes along when the error is pickled, also from another process


class EnvHangs(EnvError):
    """An environment did not answer in time. The vector of environments is as before the call."""


class NonFiniteError(HswError):
    """A loss or a gradient is NaN or infinite.

    Args:
        message: Which tensor, in which update.
        batch: The offending batch, a mapping of names to tensors; the run saves it beside its checkpoints.
    """

    exit_code = 4

    def __init__(self, message: str, batch: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.batch = batch or {}


class WorkersLostError(HswError):
    """Worker processes died more often than the budget allows.

    Args:
        message: How many, and why.
        details: The first one's traceback, if it sent one.
    """

    exit_code = 5

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class ResourceError(HswError):
    """Disk or memory gave out."""

    exit_code = 6


class CorruptError(HswError):
    """A file is damaged, too new, or not to be trusted."""

    exit_code = 7


class SweepError(HswError):
    """Jobs of a sweep failed.

    Args:
        message: How many.
        exit_code: The first one's.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after its state was saved. Not an Exception: it also ends the sweep around the run.

    Args:
        signum: The signal's number; the exit code is 128 + signum, as shells report it.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
