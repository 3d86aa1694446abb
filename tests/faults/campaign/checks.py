"""What holds after every case, whatever was done: the rule that makes it count as survived."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hsw.run.checkpoint import list_checkpoints, load_newest
from tests.runs import differences, newest, without_times

STATUSES = ("running", "done", "failed", "interrupted")


class Broken(AssertionError):
    """A case did not survive."""


def hold(condition: object, message: str) -> None:
    if not condition:
        raise Broken(message)


def check_end(code: int, codes: Collection[int], err: Path | None, run: Path | None) -> None:
    """A code that fits, one sentence for it, and a folder that can be read.

    Args:
        code: With which the command ended, negative for a signal.
        codes: That fit.
        err: The file that was its stderr, if it had one that takes everything.
        run: Its run folder, if it had one.
    """
    said = err.read_text(errors="replace") if err and err.is_file() else ""
    hold(code in codes, f"code {code} is none of {sorted(codes)}: {said[-300:]}")
    if err is not None and code > 0:
        sentences = sum(line.startswith("hsw: ") for line in said.splitlines())
        hold(sentences == 1, f"code {code} with {sentences} sentences: {said[-300:]}")
    traced = any(line.lstrip().startswith("Traceback (most recent call last)") for line in said.splitlines())
    hold(not traced, f"a traceback: {said[-600:]}")
    if run is not None:
        check_folder(run, code)


def check_folder(run: Path, code: int | None = None) -> None:
    """A run folder's metrics parse, its last good checkpoint loads, and its status agrees with the exit code."""
    if (run / "metrics.jsonl").is_file():
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        if code is None or code < 0:
            lines = lines[:-1] if lines and not lines[-1].endswith("\n") else lines  # it was killed in the middle
        for line in lines:
            try:
                json.loads(line)
            except ValueError:
                raise Broken(f"metrics.jsonl has the line {line[:100]!r}") from None
    if list_checkpoints(run / "checkpoints"):
        load_newest(run / "checkpoints")
    if (run / "status.json").is_file():
        status = json.loads((run / "status.json").read_bytes())
        hold(status["status"] in STATUSES, f"status.json says {status['status']}")
        if code is not None and code >= 0 and status["status"] != "running":
            hold(status["exit_code"] == code, f"status.json says {status['exit_code']}, and the code is {code}")
        if code == 0:
            hold(status["status"] == "done", f"code 0, and status.json says {status['status']}")


def check_same(run: Path, whole: Path, what: str) -> None:
    """A run has the metrics of another, row by row, and its last state, bit for bit."""
    check_same_metrics(run, whole, what)
    ours, theirs = newest(run), newest(whole)
    ours["logger"] = theirs["logger"]  # sizes and times
    different = [path for path in differences(ours, theirs) if "session" not in path]
    hold(not different, f"{what}: another state than the whole run's: {different[:5]}")


def check_same_metrics(run: Path, whole: Path, what: str) -> None:
    pairs = zip_longest(without_times(run), without_times(whole))
    other = next((pair for pair in pairs if pair[0] != pair[1]), None)
    hold(other is None, f"{what}: other metrics than the whole run's: {str(other)[:300]}")


def shared_memory_of(pid: int, folder: Path = Path("/dev/shm")) -> list[str]:
    """The segments that are called after a process."""
    ours = re.compile(rf"(?:torch_|pym-|sem\.loky-|loky-|joblib_memmapping_folder_){pid}[-_].*")
    return sorted(name for name in os.listdir(folder) if ours.fullmatch(name)) if folder.is_dir() else []


def contents(folder: Path, but: Path | None = None) -> dict[str, Any]:
    """What is in a folder at any depth, without what is in another: files by content, the rest by kind."""
    found: dict[str, Any] = {}
    for root, names, files in os.walk(folder):
        if but is not None:
            names[:] = [name for name in names if Path(root, name) != but]
        for name in (*names, *files):
            path = Path(root, name)
            mode = path.lstat().st_mode
            regular = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if regular else mode
    return found
