"""What made a run: versions.json, a list with one entry a session, and each session's git diff beside it.

Nothing here ends a run. A repository that answers too late, or none at all, is not told about.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hsw.directory import read_file
from hsw.errors import CorruptError
from hsw.run.folder import write_whole
from hsw.secrets import REMOVED as _REMOVED
from hsw.secrets import redact

PACKAGES = ("hsw", "torch", "numpy", "gymnasium", "hydra-core", "omegaconf", "envpool", "mujoco")
_PATIENCE = 3.0  # seconds, for all that git is asked
_LARGEST_DIFF = 256 * 1024  # bytes
_MOST_UNTRACKED = 50

SECRET_NAME = re.compile(r"(api[_-]?key|secret|password|passwd|token|credential|private[_-]?key)", re.IGNORECASE)
_NAMED = re.compile(
    rf"({SECRET_NAME.pattern}[\w-]*[\"']?\s*[:=]\s*)(?P<quote>[\"'])(?:(?!(?P=quote)).){{6,}}(?P=quote)", re.I
)
_EXPORTED = re.compile(r"\b([A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD)[A-Z0-9_]*=)[^\s'\"$]{8,}")


def record_session(folder: Path, resume: bool, settings: dict[str, Any] | None = None) -> None:
    """Add this session to a run's versions.json: versions, the command, and the repository of the working folder.

    Args:
        folder: Of the run.
        resume: Its earlier sessions stay; otherwise what is there was another run's.
        settings: Those that a session may change and that decide how it goes.

    Raises:
        ResourceError: If the disk does not take it.
    """
    earlier = read_sessions(folder) if resume else []
    if not resume:
        for path in folder.glob("git-*.diff"):
            path.unlink(missing_ok=True)
    session: dict[str, Any] = {"began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **versions(PACKAGES)}
    session |= {"settings": settings} if settings else {}
    session["command"] = [hide_secrets(word) for word in sys.argv]
    with contextlib.suppress(OSError):  # there is no git, or the working folder is gone
        here = Path.cwd()
        # Of a folder that is data, git would run what its config names.
        inside = here.resolve().is_relative_to(folder.resolve())
        if repository := None if inside else _repository(here, time.monotonic() + _PATIENCE):
            diff = repository.pop("diff")
            if diff:
                repository["diff"] = _keep_diff(folder, diff, [one.get("repository") for one in earlier])
            session["repository"] = repository
    write_whole(folder / "versions.json", (json.dumps([*earlier, session], indent=1) + "\n").encode())


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The sessions that versions.json tells of, none if it cannot be read. 0.1.0 wrote the last one alone."""
    try:
        told: Any = json.loads(read_file(folder, "versions.json", 2**24))
    except (OSError, ValueError, RecursionError, CorruptError):
        return []
    return [one for one in (told if isinstance(told, list) else [told]) if isinstance(one, dict)]


def machine() -> dict[str, Any]:
    """What the figures of a run depend on: cpu and cores."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count()}


def versions(packages: Iterable[str]) -> dict[str, Any]:
    """Versions of Python and packages, the machine, and the git commit of hsw's own code, where it is a checkout."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(), **machine()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    root = Path(__file__).resolve().parents[2]
    deadline = time.monotonic() + _PATIENCE
    with contextlib.suppress(OSError):
        if (root / ".git").exists() and (commit := _git(root, deadline, "rev-parse", "HEAD")):
            changed = _git(root, deadline, "status", "--porcelain", "-uno")
            found["git"] = commit.decode().strip() + (" with changes" if changed else "")
    return found


def hide_secrets(text: str) -> str:
    """A text without what looks like a key: values of the environment's secrets, well-known forms, and literals that
    are given to a name such as password."""
    text = _NAMED.sub(rf"\g<1>\g<quote>{_REMOVED}\g<quote>", redact(text))
    return _EXPORTED.sub(rf"\g<1>{_REMOVED}", text)


def _repository(folder: Path, deadline: float) -> dict[str, Any] | None:
    """The repository that a folder lies in: its root and commit, what is changed as a diff, and the code that it does
    not track, by name."""
    found = _git(folder, deadline, "rev-parse", "--show-toplevel", "HEAD")
    if not found:
        return None
    root, commit = os.fsdecode(found).split("\n")[:2]
    options = ("--no-ext-diff", "--no-textconv", "--no-color")
    # A little more than is kept: half a key at the end would not be known as one.
    diff = _git(Path(root), deadline, "diff", *options, "HEAD", most=_LARGEST_DIFF + 4096)
    told: dict[str, Any] = {"root": root, "commit": commit, "changed": None if diff is None else bool(diff)}
    untracked = _git(Path(root), deadline, "ls-files", "-z", "--others", "--exclude-standard", "--", "*.py")
    if untracked:
        names = [name.decode("utf-8", "replace") for name in untracked.split(b"\0")[:-1]]
        told["untracked"] = names[:_MOST_UNTRACKED] + ["..."] * (len(names) > _MOST_UNTRACKED)
    return {**told, "diff": hide_secrets((diff or b"").decode("utf-8", "replace"))}


def _keep_diff(folder: Path, diff: str, earlier: Sequence[Any]) -> str:
    """Write a session's diff, unless the session before it had the same. Returns the file's name."""
    content = diff.encode()
    if len(content) > _LARGEST_DIFF:
        content = content[:_LARGEST_DIFF] + f"\n[cut off after {_LARGEST_DIFF} bytes]\n".encode()
    last = earlier[-1].get("diff") if earlier and isinstance(earlier[-1], dict) else None
    known = isinstance(last, str) and Path(last).name == last and (folder / last).is_file()
    if known and (folder / str(last)).read_bytes() == content:
        return str(last)
    name = f"git-{len(earlier) + 1}.diff"
    (folder / name).write_bytes(content)
    return name


def _git(folder: Path, deadline: float, *arguments: str, most: int = 1 << 20) -> bytes | None:
    """The first bytes of what a git command says; None if it fails or does not answer in time.

    Raises:
        OSError: If there is no git.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    process = subprocess.Popen(
        ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that what it starts ends with it
    )
    assert process.stdout is not None

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(left, end)
    timer.daemon = True
    try:
        timer.start()
        content = process.stdout.read(most)
        return content if len(content) == most or process.wait() == 0 else None
    except RuntimeError:  # there is no thread to be had, and without one git may be waited for without end
        return None
    finally:
        timer.cancel()
        end()
        process.stdout.close()
        process.wait()
