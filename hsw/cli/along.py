"""A command as a rank after the first, which torchrun has started: it shows nothing that rank 0 shows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from hsw.cli.main import JobError, describe
from hsw.output import one_line

_HEAD_START = 3.0  # seconds


def is_first() -> bool:
    """Whether this process is rank 0, or no rank at all; a RANK that makes no sense is refused elsewhere."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") in ("", "0")


def along(main: Callable[[], None]) -> None:
    """Run a command's main."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what becomes of a connection, the watch tells
    try:
        main()
    except (Exception, JobError) as caught:
        error = caught.__cause__ or caught if isinstance(caught, JobError) else caught
        message, code = describe(error)
        time.sleep(_HEAD_START)  # of rank 0, whose error it may be as well: torchrun then ends this process
        print(f"hsw: rank {os.environ['RANK']}: {one_line(message)}", file=sys.stderr, flush=True)
        sys.exit(code)
