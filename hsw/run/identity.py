"""One run, one folder: which run a folder is of, and that all in it is of that one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hsw.directory import Directory
from hsw.errors import ConfigError, CorruptError, HswError
from hsw.run.checkpoint import list_checkpoints, read_meta
from hsw.run.paste import resume_command
from hsw.run.status import stored_status

_ID = re.compile(r"[0-9a-f]{8,64}", re.ASCII)
_LONGEST_ROW = 2**20  # bytes


def run_id_of(folder: Path) -> str | None:
    """The id of the run in a folder, which its status, its checkpoints and its metrics tell; None if none does.

    Raises:
        CorruptError: If they are of different runs.
    """
    told: dict[str, str] = {}  # which file tells it, by id
    status = stored_status(folder).get("run")
    found = [("status.json", status), ("metrics.jsonl", _told_by_metrics(folder))]
    for kind in ("checkpoints", "best"):
        for number in list_checkpoints(folder / kind):
            name = f"{kind}/{number:06d}"
            try:
                found.append((name, read_meta(folder / name).get("run")))
            except CorruptError:  # whoever loads it says so
                continue
    for name, run_id in found:
        if run_id is not None:
            if not isinstance(run_id, str) or not _ID.fullmatch(run_id):
                raise CorruptError(f"{folder / name} has a run id that is none")
            told.setdefault(run_id, name)
    if len(told) > 1:
        pairs = ", ".join(f"{name} is of run {run_id[:8]}" for run_id, name in told.items())
        raise CorruptError(f"{folder} holds parts of different runs: {pairs}; take away those of the other run")
    return next(iter(told), None)


def refuse_used(folder: Path, allow: Iterable[str] = ()) -> None:
    """Refuse to begin a run in a folder that holds another one's results.

    Args:
        folder: Of the run.
        allow: What the command line trusts, for the command that goes on with what is there.

    Raises:
        ConfigError: If it does.
    """
    try:
        with Directory.open(folder) as directory:
            names = set(directory.names())
    except OSError:  # whoever takes the folder says why
        return
    used = "config.yaml" in names or any(
        os.path.lexists(folder / kind) and any(os.scandir(folder / kind))
        for kind in ("checkpoints", "best")
        if (folder / kind).is_dir()
    )
    if used or ("metrics.jsonl" in names and (folder / "metrics.jsonl").stat().st_size > 0):
        raise ConfigError(
            f"{folder} holds a run already; continue it with: {resume_command(folder, allow)}; or take another folder "
            "(hydra.run.dir=<folder>), or delete this one"
        )


def done_at(folder: Path, budget: int) -> int | None:
    """The step at which the run in a folder is done with a budget; None if there is something left to do.

    It has told so, and its newest checkpoint has come that far.
    """
    if stored_status(folder).get("status") != "done":
        return None
    try:
        numbers = list_checkpoints(folder / "checkpoints")
        step: int = read_meta(folder / "checkpoints" / f"{numbers[-1]:06d}").get("step", -1) if numbers else -1
    except CorruptError:  # whoever loads it says so
        return None
    return step if step >= budget else None


def _told_by_metrics(folder: Path) -> Any:
    """The id in the first row; each session's first row has one."""
    try:
        with Directory.open(folder) as directory:
            descriptor = directory.open_file("metrics.jsonl", os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            row = json.loads(file.readline(_LONGEST_ROW))
    except (OSError, ValueError, RecursionError, HswError):
        return None
    return row.get("run") if isinstance(row, dict) else None
