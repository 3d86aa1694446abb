"""Streams that take nothing, or not everything, and too little of what a process needs."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hsw.run.checkpoint import list_checkpoints
from tests.faults.campaign.checks import check_end, check_folder, check_same_metrics
from tests.faults.campaign.kills import Tried
from tests.faults.campaign.server import fork, limit, scratch
from tests.faults.campaign.store import EXACT, PLAIN, SETUPS, Store
from tests.runs import run_dir, tiny

KINDS = ("file", "full", "closed", "broken", "ascii", "head", "terminal")
CHATTY = ("env=gym", "env.id=tests.envs:Chatty-v0", "num_train_steps=200")


def streams(rng: random.Random, store: Store) -> Tried:
    """Whatever becomes of stdin, stdout and stderr: the same training, the same code."""
    kinds = {"stdin": rng.choice(("file", "closed")), "stdout": rng.choice(KINDS), "stderr": rng.choice(KINDS)}
    name = rng.choice((*PLAIN, "impala", rng.choice(EXACT)))
    arguments = SETUPS[name].arguments
    if rng.random() < 0.3:
        name, size = "chatty", rng.choice((10, 9999))
        arguments = (*tiny("ppo"), *CHATTY, f"+env.kwargs.size={size}", f"env.backend={rng.choice(('sync', 'async'))}")
    quiet = rng.random() < 0.3
    what = f"{', '.join(kinds.values())} with {name}{' quiet' if quiet else ''}"
    whole = store.run(*arguments)
    with scratch() as place:

        def damage() -> None:
            for descriptor, (stream, kind) in enumerate(kinds.items()):
                _damage(descriptor, stream, kind)

        options = (f"quiet={str(quiet).lower()}", run_dir(place / "run"))
        process = fork(place, *arguments, *options, before=damage)
        check_end(process.wait(), {0}, None, place / "run")
        if name != "impala":
            check_same_metrics(place / "run", whole, what)
    return Tried(what)


def _damage(descriptor: int, stream: str, kind: str) -> None:
    """Make a stream of this process one of a kind."""
    if kind == "closed":
        os.close(descriptor)
        setattr(sys, stream, None)
    elif kind == "ascii":
        getattr(sys, stream).reconfigure(encoding="ascii", errors="strict")
    elif kind != "file":
        opened = {"full": _full, "broken": _broken, "head": _head, "terminal": _hung_up}[kind]()
        os.dup2(opened, descriptor)
        os.close(opened)


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _broken() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def _head() -> int:
    """A pipe whose reader goes after some bytes."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        os.read(read, 100)
        os._exit(0)
    os.close(read)
    return write


def _hung_up() -> int:
    """A terminal that somebody has closed."""
    main, terminal = os.openpty()
    os.close(main)
    return terminal


LIMITS = {
    "FSIZE": (resource.RLIMIT_FSIZE, 0, 60_000),
    "NOFILE": (resource.RLIMIT_NOFILE, 12, 120),
    "AS": (resource.RLIMIT_AS, 0, 400),  # MB more than there are
    "disk": (-1, 16, 400),  # KB
}


def limits(rng: random.Random, store: Store) -> Tried:
    """Too little of something: a code for it, and what was saved can be gone on with."""
    kind = rng.choice(sorted(LIMITS))
    number, low, high = LIMITS[kind]
    amount, name = rng.randrange(low, high), rng.choice((*PLAIN, "impala", rng.choice(EXACT)))
    what, again = f"{kind} of {amount} with {name}", rng.random() < 0.5
    with scratch() as place, _small_disk(place / "disk", amount if kind == "disk" else None) as disk:
        before: Callable[[], None] = lambda: None
        if kind == "AS":
            before = lambda: limit(number, _address_space() + amount * 2**20)()
        elif kind != "disk":
            before = limit(number, amount)
        run = disk / "run"
        process = fork(place, *SETUPS[name].arguments, run_dir(run), before=before)
        code = process.wait()
        # With FSIZE what the process says is limited too.
        check_end(code, {0, 2, 3, 5, 6}, None if kind == "FSIZE" else process.err, None)
        check_folder(run, code if (run / "status.json").exists() else None)
        if again and code and kind != "disk" and list_checkpoints(run / "checkpoints"):
            process = fork(place, f"resume={run}", "allow=[tests]", "quiet=true")
            check_end(process.wait(), {0}, process.err, run)
    return Tried(f"{what}: code {code}")


@contextlib.contextmanager
def _small_disk(place: Path, kilobytes: int | None) -> Iterator[Path]:
    """A file system of that size, where this process may make one; else a folder."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    mounted = kilobytes is not None and not subprocess.run(["mount", *options], capture_output=True).returncode
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


SCARCITY: dict[str, tuple[Callable[[random.Random, Store], Tried], float]] = {
    "streams": (streams, 8),
    "limits": (limits, 8),
}
