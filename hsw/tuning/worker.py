"""A process that runs a command as often as it is asked, each time in a child of its own: what is slow to import is
imported once, and a job that crashes takes nothing with it.

python -m hsw.tuning.worker <module with cli()> [<module to import>] ...

A request is a line of JSON with arguments, environment and the file for what the command prints; the answer is one
with the child's exit code, negative for a signal.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a terminal's, for the jobs: the tuner ends this process


def main() -> None:
    """Serve until there is nobody to ask."""
    before = {signum: signal.getsignal(signum) for signum in _IGNORED}
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    command, *_ = [importlib.import_module(name) for name in sys.argv[1:]]
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            _become(request)
            command.cli()  # its exit is the child's
            return
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _become(request: dict[str, Any]) -> None:
    """The arguments, the environment and the streams of a process that was started for this alone."""
    sys.argv = ["hsw-train", *request["arguments"]]
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDONLY)
    said = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor, stream in ((null, 0), (said, 1), (said, 2)):
        os.dup2(descriptor, stream)
    sys.stdin = os.fdopen(0, closefd=False)  # the old one has read ahead


if __name__ == "__main__":
    main()
