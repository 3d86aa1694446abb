"""The end of a process that cannot end by itself: what is said, what is written down, and the code are one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

leave = os._exit  # environments may get to see another one, see hsw.env.life
strays: list[threading.Thread] = []  # that would keep the process alive, and are known to be nobody's
_witnesses: list[Callable[[int, str], str]] = []


@contextlib.contextmanager
def witness(tell: Callable[[int, str], str]) -> Iterator[None]:
    """Within the body, a sudden end is told to `tell`, which gets the exit code and the sentence.

    It writes down what has to stay, and returns the sentence with what it knows besides. It may be called by any
    thread, at any moment.
    """
    _witnesses.append(tell)
    try:
        yield
    finally:
        _witnesses.remove(tell)


def say(sentence: str) -> None:
    """Show a sentence, from whichever thread, and whatever has become of stderr."""
    with contextlib.suppress(OSError):
        os.write(2, f"hsw: {sentence}\n".encode(errors="backslashreplace"))


def end_now(code: int, sentence: str) -> NoReturn:
    """End the process at once, whatever its threads do."""
    try:
        for tell in reversed(_witnesses):
            with contextlib.suppress(Exception):
                sentence = tell(code, sentence)
        say(sentence)
    finally:
        leave(code)
