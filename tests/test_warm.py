"""Commands that are forked off a process with torch and hsw imported are as those that were started for themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.runs import finish, start
from tests.warm import Forked

TELLS = """
import json, multiprocessing, os, resource, signal, sys, threading
handlers = {number: str(signal.getsignal(number)) for number in signal.valid_signals()}
streams = [(one.fileno(), one.encoding, one.line_buffering, one.errors) for one in (sys.stdin, sys.stdout, sys.stderr)]
print(json.dumps({
    "arguments": sys.argv, "name": __name__, "folder": os.getcwd(), "path": sys.path, "variables": dict(os.environ),
    "signals": handlers, "leads": os.getsid(0) == os.getpid() == os.getpgrp(), "threads": threading.active_count(),
    "method": multiprocessing.get_start_method(allow_none=True), "streams": streams, "mask": os.umask(0),
    "files": os.listdir("/proc/self/fd"), "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
    "main": sys.modules["__main__"].TELLS,
}))
sys.exit(7)
""".replace("import json,", "TELLS = 1\nimport json,", 1)


def test_a_forked_command_finds_what_a_started_one_does(tmp_path: Path) -> None:
    env = {"HSW_OWN": "1", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    told: list[Any] = []
    for forked in (True, False):
        process = start("one", "two", env=env, program=("-c", TELLS), cwd=tmp_path, forked=forked)
        assert isinstance(process, Forked) is forked
        result = finish(process)
        assert result.code == 7, result.err
        told.append(json.loads(result.out))
    assert told[0] == told[1]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_it_ends_of_a_signal_as_a_process_does(signum: int) -> None:
    process = start(program=("-c", "import time; print('here', flush=True); time.sleep(600)"))
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.1)
    process.send_signal(signum)
    assert finish(process).code == -signum


def test_its_error_ends_it_with_1_and_is_told() -> None:
    result = finish(start(program=("-c", "raise ValueError('mine')")))
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith("ValueError: mine\n")
