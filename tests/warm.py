"""Commands in processes of their own, forked off one that has torch and hsw imported already.

A test whose claim is about a command's process, its signals and its end need not wait a second for imports each time.
`python -m tests.warm <socket>` is the process that is forked; each fork leads a session, with the arguments, variables,
streams and `__main__` that a process started for this alone would have.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
# What a command imports by and by, but no command itself, each of which is to begin as it does.
IMPORTED = (
    "hydra._internal.core_plugins.basic_launcher",
    "hydra.core.override_parser.overrides_parser",
    "hsw.build",
    "hsw.cli.summary",
    "hsw.config.arguments",
    "hsw.config.settled",
    "hsw.done",
    "hsw.env.trust",
    "hsw.learners",
    "hsw.run.header",
    "hsw.run.identity",
    "hsw.run.log_file",
    "hsw.run.watched",
    "hsw.sweep.callback",
    "hsw.sweep.gate",
    "safetensors.torch",
)
_AT_START = ("PYTHON", "LD_", "MALLOC_", "OMP_", "MKL_", "OPENBLAS_", "TORCH_")  # variables that are read only then
_STATUS = struct.Struct("i")


class Forked:
    """A command that runs, as subprocess.Popen tells of one.

    Attributes:
        pid: Of the process.
        stdout, stderr: What it says, as text.
        returncode: Once it is known to have ended: negative for a signal.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        pipes = [os.pipe() for _ in range(3)]
        message = json.dumps(request).encode()
        socket.send_fds(_server(), [struct.pack("i", len(message))], [write for _, write in pipes])
        _server().sendall(message)
        for _, write in pipes:
            os.close(write)
        self._status = open(pipes[2][0], "rb", buffering=0)  # noqa: SIM115
        self.stdout: IO[str] = open(pipes[0][0])  # noqa: SIM115
        self.stderr: IO[str] = open(pipes[1][0])  # noqa: SIM115
        (self.pid,) = _STATUS.unpack(self._status.read(_STATUS.size))
        self.returncode: int | None = None
        self._readers: list[threading.Thread] = []
        self._said: dict[int, str] = {}

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            (self.returncode,) = _STATUS.unpack(self._status.read(_STATUS.size))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if not self._readers:
            streams = (self.stdout, self.stderr)
            self._readers = [threading.Thread(target=self._read, args=(stream,), daemon=True) for stream in streams]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        self.wait(timeout)
        return self._said[id(self.stdout)], self._said[id(self.stderr)]

    def _read(self, stream: IO[str]) -> None:
        self._said[id(stream)] = stream.read()
        stream.close()

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def can_fork(program: tuple[str, ...], environment: dict[str, str]) -> bool:
    """Whether a program need not be started: it is one of hsw's, and its variables can be set later."""
    known = program[:1] == ("-c",) or (program[:1] == ("-m",) and program[1].startswith("hsw."))
    changed = {name for name, _ in set(environment.items()) ^ set(os.environ.items())} - {"PYTHONPATH"}
    return known and len(program) == 2 and not any(name.startswith(_AT_START) for name in changed)


@functools.cache
def _server() -> socket.socket:
    """The process that is forked, by its socket; it ends when this one does."""
    own, other = socket.socketpair()
    command = [sys.executable, "-m", "tests.warm", str(other.fileno())]
    subprocess.Popen(command, cwd=ROOT, pass_fds=[other.fileno()], start_new_session=True, stdin=subprocess.DEVNULL)
    other.close()
    return own


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Returns in each fork, with what it is to run; None in the server once there is nobody to ask."""
    while True:
        header, streams, _, _ = socket.recv_fds(connection, 4, 3)
        if not header:
            return None
        message = b""
        while len(message) < struct.unpack("i", header)[0]:
            message += connection.recv(1 << 20)
        if os.fork():
            for stream in streams:
                os.close(stream)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        if pid := os.fork():
            _tell_end(pid, streams)
        os.close(streams[2])
        os.setsid()
        for number in (0, 1):
            os.dup2(streams[number], number + 1)
            os.close(streams[number])
        request: dict[str, Any] = json.loads(message)
        return request


def _tell_end(pid: int, streams: list[int]) -> None:
    """Stand by until a command has ended, and say how."""
    try:
        os.close(streams[0])
        os.close(streams[1])
        os.write(streams[2], _STATUS.pack(pid))
        _, status = os.waitpid(pid, 0)
        os.write(streams[2], _STATUS.pack(os.waitstatus_to_exitcode(status)))
    finally:
        os._exit(0)


def _run(program: list[str], arguments: list[str], environment: dict[str, str], folder: str) -> None:
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    added = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place not in known]
    sys.path[:1] = [folder, *added]
    kind, what = program
    if kind == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(what, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    for imported in IMPORTED:
        importlib.import_module(imported)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if asked := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _run(**asked)
