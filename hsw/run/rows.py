"""The rows of AppendLogs on disk: files that never change, in the folder `rows` beside the checkpoints.

A file is called by the checksum of its content, so that one of that name can hold nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from hsw.append_log import AppendLog, Piece
from hsw.directory import Directory
from hsw.errors import CorruptError
from hsw.memory import available_memory

FOLDER = "rows"
_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OURS = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}(-[0-9]+)?", re.ASCII)  # with those that are half written

Entry = dict[str, Any]  # begin, end and sha256 of a file


def write_rows(directory: Directory, log: AppendLog, saved: list[Entry], rank: int = 0) -> list[Entry]:
    """Write the rows that no file has yet.

    Args:
        directory: Of the checkpoints.
        log: The rows.
        saved: The entries of the checkpoint before.
        rank: Whose rows they are; another's may have the same content and are written at the same time.

    Returns:
        The entries of all files that hold rows which count.
    """
    from safetensors.torch import save

    entries = [entry for entry in saved if any(end > low for end, low in zip(entry["end"], log.begin, strict=True))]
    with contextlib.ExitStack() as stack:
        rows: Directory | None = None
        if directory.kind(FOLDER):
            rows = stack.enter_context(directory.enter(FOLDER))
        if rows is None or not all(rows.kind(entry["sha256"]) == "file" for entry in entries):  # somebody deleted one
            entries = []
        begin = [max(pair) for pair in zip(log.begin, entries[-1]["end"] if entries else log.begin, strict=True)]
        for piece in log.read(begin, log.end) if begin != list(log.end) else ():
            rows = rows or stack.enter_context(directory.enter(FOLDER, create=True))
            content = save({"rows": piece.rows.contiguous()})
            name = hashlib.sha256(content).hexdigest()
            rows.write(f".{name}-{rank}", content)
            rows.rename(f".{name}-{rank}", name)
            entries.append({"begin": list(piece.begin), "end": list(piece.end), "sha256": name})
        if rows is not None:
            rows.sync()
    return entries


def drop_rows(directory: Directory, used: Iterable[str]) -> None:
    """Delete the files of rows that are not used; only what is called as such a file is."""
    if not directory.kind(FOLDER):
        return
    used = set(used)
    with directory.enter(FOLDER) as rows:
        for name in rows.names():
            if name not in used and _OURS.fullmatch(name):
                rows.remove(name)


def check_rows(directory: Directory, entries: Any, read: bool) -> list[Entry]:
    """The entries of one log in a manifest.

    Args:
        directory: Of the checkpoints.
        entries: As the manifest has them.
        read: Also check that the files are whole.

    Raises:
        CorruptError: If they are not of their form, or a file is not what it was.
        OSError: If a file cannot be read.
    """
    ends: list[int] | None = None
    limit, whole = available_memory() if read else 0, set[str]()
    for entry in entries:
        begin, end, name = entry["begin"], entry["end"], entry["sha256"]
        spans = _counts(begin) and _counts(end) and len(begin) == len(end)
        if not (spans and isinstance(name, str) and _NAME.fullmatch(name)):
            raise CorruptError(f"the rows of {directory.path} are not told as rows are")
        backwards = any(b > e for b, e in zip(begin, end, strict=True))
        if backwards or (ends is not None and any(e > b for e, b in zip(ends, begin, strict=True))):
            raise CorruptError(f"the rows of {directory.path} do not follow one another")
        ends = end
        if read and name not in whole:
            whole.add(name)
            with directory.enter(FOLDER) as rows, os.fdopen(rows.open_file(name, os.O_RDONLY), "rb") as file:
                if os.fstat(file.fileno()).st_size > limit:  # one is read at a time: a replay may be on disk
                    raise CorruptError(f"{rows.path / name} is larger than memory")
                if hashlib.file_digest(file, "sha256").hexdigest() != name:
                    raise CorruptError(f"{rows.path / name} does not match its checksum")
    return list(entries)


def saved_log(folder: Path, entries: list[Entry], begin: Any, end: Any) -> AppendLog:
    """The AppendLog of rows [begin, end) that files hold.

    Args:
        folder: Of the checkpoints.
        entries: What check_rows returned.
        begin, end: For each column.

    Raises:
        CorruptError: If the files do not hold those rows.
    """
    spans = _counts(begin) and _counts(end) and len(begin) == len(end)
    if not spans or any(b > e for b, e in zip(begin, end, strict=True)):
        raise CorruptError("the rows that count are not told as rows are")
    covered = list(begin)  # up to where, of each column; rows that count no more may be missing
    for entry in entries:
        held = zip(covered, entry["begin"], entry["end"], strict=True)
        covered = [max(done, e) if b <= done else done for done, b, e in held]
    if covered != list(end):
        raise CorruptError("the files of rows do not hold the rows that count")
    return AppendLog(begin, end, lambda begin, end: _read(folder, entries))


def _read(folder: Path, entries: list[Entry]) -> Iterator[Piece]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for entry in entries:
        with Directory.open(folder, follow=False) as directory, directory.enter(FOLDER) as rows:
            descriptor = rows.open_file(entry["sha256"], os.O_RDONLY)
            try:
                tensors = load_file(f"/dev/fd/{descriptor}")
            except (SafetensorError, ValueError) as error:
                raise CorruptError(f"{rows.path / entry['sha256']} holds no rows: {error}") from error
            finally:
                os.close(descriptor)
            held = tensors.get("rows", torch.empty(0))
            count = sum(end - begin for begin, end in zip(entry["begin"], entry["end"], strict=True))
            if set(tensors) != {"rows"} or held.dtype != torch.uint8 or held.ndim != 2 or len(held) != count:
                raise CorruptError(f"{rows.path / entry['sha256']} does not hold {count} rows of bytes")
        yield Piece(entry["begin"], entry["end"], held)


def _counts(values: Any) -> bool:
    return isinstance(values, Sequence) and all(type(value) is int and 0 <= value < 2**62 for value in values)
