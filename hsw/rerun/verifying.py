"""Verifying a run: its segments run again, and what came of it in verified.json."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hsw.config.resolved import load_config
from hsw.device import resolve_device
from hsw.directory import Directory
from hsw.errors import ConfigError, CorruptError, HswError, ResourceError
from hsw.rerun.history import History, read_history
from hsw.rerun.segments import Segment, run_segment, segments_of
from hsw.run.checkpoint import list_checkpoints, read_state
from hsw.run.folder import UnownedFolder
from hsw.run.provenance import PACKAGES, read_sessions, versions

NAME = "verified.json"
_ALIKE = ("python", "platform", "cpu", "git", *PACKAGES)  # what bits may depend on


def verify(
    folder: Path,
    segments: int | None = None,
    seed: int = 0,
    allow: Sequence[str] = (),
    device: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run segments of a run again and compare; the result is also in the folder's verified.json.

    Args:
        folder: The run's.
        segments: How many, drawn at random; None takes all.
        seed: Of the draw.
        allow: Packages, and places outside of the folder, that the run's config may name.
        device: Where to compute; None takes the run's.
        say: Is told how it goes, a line at a time.

    Returns:
        What verified.json holds: `verified` is True, False, or None where nothing could be run again.

    Raises:
        ConfigError: If there is no run, a process owns it, or an argument is wrong.
        CorruptError: If it cannot be read.
        ResourceError: If the result cannot be written.
    """
    if segments is not None and segments < 1:
        raise ConfigError(f"--segments={segments} must be at least 1; leave it out for all")
    load_config(folder)  # raises if there is no run
    began = time.time()
    with contextlib.closing(UnownedFolder(folder)) as held:
        held.hold()
        history = read_history(folder, allow, device)
        for kept in list(history.kept):
            history.readable(kept)
        problems = [*history.problems, *_check_best(folder)]
        found = segments_of(history)
        chosen = [] if history.inexact else _drawn(found, segments, seed)
        for number, segment in enumerate(chosen, 1):
            say(f"segment {number} of {len(chosen)}, {segment}")
            run_segment(history, segment)
            say(f"  {segment.result}{': ' + segment.why if segment.why else ''}{_rest(segment)}")
        compared = [segment for segment in chosen if segment.result != "not run"]
        failed = problems + [text for segment in compared for text in segment.differences[:1]]
        result = {
            "verified": not failed if compared or failed else None,
            "first": failed[0] if failed else None,
            "inexact": history.inexact,
            "segments": [segment.plain() for segment in chosen],
            "left_out": len(found) - len(chosen),
            "problems": problems,
            "probable_cause": _probable_cause(history, compared) if failed and not problems else None,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
            "seconds": round(time.time() - began, 3),
            "steps": history.kept[-1].step,
            "checkpoints": {kept.path.name: _sha256(kept.path, "manifest.json") for kept in history.kept},
            "metrics": _sha256(folder, "metrics.jsonl"),
            **({"checked": _checked(history)} if history.inexact else {}),
            "with": versions(PACKAGES),
        }
        try:
            held.directory.replace(NAME, (json.dumps(result, indent=1) + "\n").encode())
        except OSError as error:
            raise ResourceError(f"cannot write {folder / NAME}: {error.strerror or error}") from error
    return result


def refuse_different(result: dict[str, Any]) -> None:
    """Raise for a run that is not what its rerun is.

    Raises:
        CorruptError: Naming what differs first, and what may be the cause.
    """
    if result["verified"] is False:
        cause = f"; {result['probable_cause']}" if result["probable_cause"] else ""
        raise CorruptError(f"not verified: {result['first']}{cause}")


def _drawn(found: list[Segment], number: int | None, seed: int) -> list[Segment]:
    if number is None or number >= len(found):
        return found
    places = sorted(random.Random(seed).sample(range(len(found)), number))
    return [found[place] for place in places]


def _rest(segment: Segment) -> str:
    if segment.result == "same":
        return f": {segment.rows} rows, {segment.numbers:,} numbers"
    return "".join(f"\n    {text}" for text in segment.differences)


def _check_best(folder: Path) -> list[str]:
    """What is wrong with the networks of the best evaluation."""
    problems = []
    for number in list_checkpoints(folder / "best"):
        try:
            read_state(folder / "best" / f"{number:06d}")
        except CorruptError as error:
            problems.append(str(error))
    return problems


def _checked(history: History) -> list[str]:
    """What holds of a run that cannot be run again."""
    kept = len(history.kept)
    checkpoints = "1 checkpoint and its checksums" if kept == 1 else f"{kept} checkpoints and their checksums"
    loads = [] if history.config.learners > 1 else ["the newest one loads"]
    return ["the config", checkpoints, *loads, f"{len(history.rows)} rows of metrics in order"]


def _probable_cause(history: History, compared: list[Segment]) -> str | None:
    """What a difference may come from but the segment's end: another machine or version, or its beginning."""
    here, there = versions(PACKAGES), (read_sessions(history.folder) or [{}])[-1]
    other = [
        f"{name} {there[name]} there and {here[name]} here"
        for name in _ALIKE
        if name in there and name in here and there[name] != here[name]
    ]
    if other:
        return f"bits may differ between machines and versions, which is the probable cause: {', '.join(other)}"
    if resolve_device(history.config.device).type != "cpu":
        return f"device={history.config.device}: on a GPU, the same operations may round differently from run to run"
    begin = next(segment for segment in compared if segment.differences).begin
    if begin and not any(segment.end == begin for segment in compared):
        return f"perhaps it is {begin} that was changed, where this segment begins; --all verifies what led to it too"
    return None


def _sha256(folder: Path, name: str) -> str | None:
    try:
        with Directory.open(folder) as directory, os.fdopen(directory.open_file(name, os.O_RDONLY), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, HswError):
        return None
