"""What is for train.log alone: the tracebacks behind the sentences that a terminal shows."""

from __future__ import annotations

import contextlib
import logging
import traceback

from hsw.errors import HswError


def log_to_file(message: str) -> None:
    """Append an error's text to the log files of this process, and not to its terminal.

    A file that cannot be written is passed over: whoever asks has an error of its own to tell.
    """
    record = logging.LogRecord("hsw", logging.ERROR, __file__, 0, message, None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with contextlib.suppress(OSError):
                handler.flush()
                with open(handler.baseFilename, "a", encoding="utf-8") as file:
                    file.write(handler.format(record) + "\n")


def log_error(error: BaseException, sentence: str) -> None:
    """Log how a run ended: the sentence that the terminal shows, and the traceback behind it if there is one."""
    details = error.details if isinstance(error, HswError) else ""
    if isinstance(error, Exception) and not isinstance(error, HswError):
        details = "".join(traceback.format_exception(error))
    log_to_file(f"{sentence}\n{details}".rstrip())
