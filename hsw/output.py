"""Output is a service: what cannot be written is not written, which is said once, and nothing else changes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

log = logging.getLogger("hsw")
_lost: list[str] = []  # what was switched off, for whom it may concern


class _Raw(io.FileIO):
    """A descriptor of the process. The first write that fails points it at /dev/null, for children and C as well."""

    def write(self, content: Any) -> int:
        try:
            written = super().write(content)
            return len(content) if written is None else written  # None: it does not block, and is full
        except OSError as error:
            switch_off(self.fileno(), error)
            return len(content)


def switch_off(descriptor: int, error: OSError) -> None:
    """Let whatever is written to a descriptor from now on vanish."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
    name = {1: "stdout", 2: "stderr"}.get(descriptor, f"descriptor {descriptor}")
    _lost.append(name)
    log.warning("%s takes no more output (%s); the run goes on without it", name, error.strerror or error)


def secure_streams() -> None:
    """Let stdout and stderr of this process never fail, whatever they are: closed, full, a broken pipe, or ASCII.

    Streams that a person or a library has put in their place are left alone.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file to be opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor, inheritable=True)
                os.close(null)
            else:
                os.set_inheritable(descriptor, True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and stream is not getattr(sys, f"__{name}__"):
            continue
        if stream is not None:
            if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", None), _Raw):
                continue
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        raw = _Raw(descriptor, "w", closefd=False)
        terminal = raw.isatty()
        safe = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding if stream else "utf-8",
            errors="backslashreplace",
            line_buffering=terminal or name == "stderr",
            write_through=name == "stderr",
        )
        setattr(sys, name, safe)
        setattr(sys, f"__{name}__", safe)


def secure_logging() -> None:
    """Let every handler of logs that fails do so once, and in silence from then on."""
    logging.raiseExceptions = False
    for handler in (*logging.getLogger().handlers, *log.handlers):
        if handler.__dict__.get("handleError") is None:
            handler.handleError = _Failed(handler)  # type: ignore[method-assign]
            handler.setFormatter(_Printable(handler.formatter))
        stream = getattr(handler, "stream", None)
        if isinstance(handler, logging.FileHandler) and isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


class _Printable(logging.Formatter):
    """A formatter whose text commands no terminal."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self._formatter = formatter or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return printable(self._formatter.format(record))


class _Failed:
    """What a handler does with its errors."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        self._handler.addFilter(lambda record: False)
        where = getattr(self._handler, "baseFilename", None) or "the console"
        with contextlib.suppress(Exception):
            log.warning("%s takes no more of the log (%s); the run goes on without it", where, error)


def one_line(text: str) -> str:
    """Text as it may go to a terminal: what came from outside may hold escapes, which there are commands."""
    return "".join(c if c.isprintable() or c == " " else _ESCAPED.get(c) or repr(c)[1:-1] for c in text.strip())


def printable(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(one_line(line) for line in text.split("\n"))


_ESCAPED = {"\n": " ", "\t": " ", "\r": " "}


class Service:
    """An object whose methods are called for their effect on a person; the first that raises is the last called.

    Args:
        target: The object.
        name: What it is, for the one warning.
    """

    def __init__(self, target: Any, name: str) -> None:
        self.__dict__.update(_target=target, _name=name, _on=True)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._guarded(value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._on:
                return None
            try:
                return method(*args, **kwargs)
            except Exception as error:
                self.__dict__["_on"] = False
                log.warning("%s stopped (%s: %s); the run goes on", self._name, type(error).__name__, error)
                return None

        return call
