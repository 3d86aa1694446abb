"""What a run's folder tells beside its metrics: the log's end and first error, a certificate, videos."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hsw.directory import Directory, read_file
from hsw.errors import CorruptError

_HEAD, _TAIL = 2**20, 2**14  # bytes of a log that are looked at
_TAIL_LINES, _ERROR_LINES = 40, 25
_ERROR = re.compile(r"\[(ERROR|CRITICAL)\]|^Traceback \(most recent call last\)|^\w+(\.\w+)*(Error|Exception)\b")
_LARGEST_CERTIFICATE = 2**22  # bytes
_MOST_LINES = 300  # of a certificate
_MEDIA = {".mp4": "video/mp4", ".gif": "image/gif"}


@dataclass
class Video:
    """An mp4 or gif: its name, its address beside the page, and its content if it is small enough to be within."""

    name: str
    link: str
    kind: str
    data: str | None = None


@dataclass
class Told:
    """What a folder tells; empty where it does not.

    Attributes:
        log_tail, first_error: Of train.log.
        certificate: Of hsw.verify, one line for each value.
        verified: What it says in a word.
        videos: The newest last.
    """

    log_tail: str = ""
    first_error: str = ""
    certificate: str = ""
    verified: str = ""
    videos: list[Video] = field(default_factory=list)


def read_folder(path: Path, page: Path, room: int) -> Told:
    """Read a run's folder; what cannot be read is passed over, and no link is followed.

    Args:
        path: Of the run.
        page: The folder that the page is in.
        room: Bytes that its newest video may have to be put into the page.
    """
    told = Told()
    told.log_tail, told.first_error = _log(path)
    told.certificate, told.verified = _certificate(path)
    told.videos = _videos(path, page, room)
    return told


def _log(path: Path) -> tuple[str, str]:
    try:
        with (
            Directory.open(path) as directory,
            os.fdopen(directory.open_file("train.log", os.O_RDONLY), "rb") as file,
        ):
            head = file.read(_HEAD).decode(errors="replace").splitlines()
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL).decode(errors="replace").splitlines()[1 if size > _TAIL else 0 :]
    except (OSError, CorruptError):
        return "", ""
    first = next((n for n, line in enumerate(head) if _ERROR.search(line)), None)
    error = [] if first is None else head[first : first + _ERROR_LINES]
    return "\n".join(tail[-_TAIL_LINES:]), "\n".join(line[:1000] for line in error)


def _certificate(path: Path) -> tuple[str, str]:
    if not os.path.isfile(path / "verified.json"):
        return "", ""
    try:
        told = json.loads(read_file(path, "verified.json", _LARGEST_CERTIFICATE))
        lines = _lines(told)
    except (OSError, CorruptError, ValueError, RecursionError):
        return "verified.json cannot be read", "unreadable"
    words = {True: "yes", False: "no", None: "cannot be run again"}
    how = told.get("verified", "") if isinstance(told, dict) else ""
    verified = words.get(how, "") if how is None or isinstance(how, bool) else ""
    return "\n".join(lines[:_MOST_LINES] + ["..."] * (len(lines) > _MOST_LINES)), verified or "see the certificate"


def _lines(value: Any, name: str = "") -> list[str]:
    """A nested value, one line for each of its leaves."""
    if isinstance(value, dict) and value:
        return [line for key, item in value.items() for line in _lines(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [line for number, item in enumerate(value) for line in _lines(item, f"{name}[{number}]")]
    return [f"{name}: {json.dumps(value, ensure_ascii=False)}"]


def _videos(path: Path, page: Path, room: int) -> list[Video]:
    found: list[tuple[float, Path]] = []
    for folder in (path, path / "videos"):
        try:
            entries = list(os.scandir(folder)) if not folder.is_symlink() else []
        except OSError:
            continue
        for entry in entries:
            if os.path.splitext(entry.name)[1] in _MEDIA and entry.is_file(follow_symlinks=False):
                found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    videos = []
    for _, file in sorted(found):
        # A relative address has no scheme, whatever the folder is called.
        link = "./" + quote(os.fsencode(os.path.relpath(file, page)))
        videos.append(Video(file.name, link, _MEDIA[file.suffix]))
    if found:
        newest = max(found)[1]
        try:
            content = base64.b64encode(read_file(newest.parent, newest.name, room)).decode()
            videos[-1].data = f"data:{videos[-1].kind};base64,{content}"
        except (OSError, CorruptError):  # too large: its address is there
            pass
    return videos
