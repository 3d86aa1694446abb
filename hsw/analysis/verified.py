"""What a run's verified.json says, for reports."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from hsw.directory import Directory, read_file
from hsw.errors import CorruptError

_LARGEST = 2**22  # bytes


def read_verified(path: Path) -> str | None:
    """What verified.json says, as far as it still is of what lies beside it."""
    if not os.path.isfile(path / "verified.json"):
        return None
    try:
        told = json.loads(read_file(path, "verified.json", _LARGEST))
        segments = [one for one in told["segments"] if one["result"] != "not run"]
        known = [(f"checkpoints/{name}/manifest.json", sha) for name, sha in dict(told["checkpoints"]).items()]
        changed = any(_sha256(path / name) != sha for name, sha in [*known, ("metrics.jsonl", told["metrics"])])
        how, first, inexact, steps = told["verified"], told["first"], told["inexact"], int(told["steps"])
    except (CorruptError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "verified.json cannot be read"
    if changed:
        return "the run has changed since it was verified"
    if how is True:
        of = len(segments) + int(told.get("left_out", 0)) + len(told["segments"]) - len(segments)
        return f"{len(segments)} of {of} segments to step {steps:,} come out bit for bit"
    return f"not verified: {first}" if how is False else f"cannot be run again: {inexact or 'nothing could be'}"


def _sha256(path: Path) -> str:
    with (
        Directory.open(path.parent, follow=False) as directory,
        os.fdopen(directory.open_file(path.name, os.O_RDONLY), "rb") as file,
    ):
        return hashlib.file_digest(file, "sha256").hexdigest()
