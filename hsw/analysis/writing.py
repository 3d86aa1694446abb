"""Where a report goes: which form on the terminal, which into a file, and again while its runs go on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hsw.analysis.page.render import page
from hsw.analysis.report_data import Report
from hsw.analysis.results import find_studies
from hsw.analysis.tables import FORMATS
from hsw.analysis.terminal import to_text
from hsw.directory import Directory
from hsw.errors import ConfigError, ResourceError
from hsw.secrets import redact

FORMS = {"text": "txt", "md": "md", "html": "html", "csv": "csv", "json": "json"}  # with the suffix of each
_WATCHED = ("metrics.jsonl", "status.json", "config.yaml", "train.log", "verified.json")


@dataclass
class Target:
    """What is printed and what is written.

    Attributes:
        printed: A form; of a page only where it is.
        written: A form.
        file: That is written; None if none is.
    """

    printed: str
    written: str
    file: Path | None


def target(form: str | None, out: Path | None, folders: Sequence[Path], terminal: bool) -> Target:
    """Where a report goes.

    Args:
        form: Asked for; None is text on a terminal, markdown elsewhere, and what the name of a file says.
        out: A folder, or a file whose name ends like one of the forms'.
        folders: That are reported on; a page goes into the one, or here, if nothing else is said.
        terminal: Whether a person reads what is printed.

    Raises:
        ConfigError: If the name of the file is another form's.
    """
    forms = {suffix: name for name, suffix in FORMS.items()}
    named = None if out is None or out.is_dir() else forms.get(out.suffix[1:])
    if named and form and named != form:
        raise ConfigError(f"--out {out} is the name of a file of --format {named}, not {form}")
    written = form or named or "md"
    printed = form or named or ("text" if terminal else "md")
    if out is None and written == "html":
        out = folders[0] if len(folders) == 1 else Path()
    file = out if named else out / f"report.{FORMS[written]}" if out is not None else None
    return Target(printed, written, file)


def text_of(result: Report, form: str) -> str:
    """A report in one of the forms that are texts, without secrets."""
    return encodable(redact(to_text(result) if form == "text" else FORMATS[form](result)))


def write_page(result: Report, file: Path, again: float | None, pictures: bool) -> str:
    """Write a report as a page, see hsw.analysis.page. Returns what there is to say of it."""
    text = encodable(page(result, file.parent, again, pictures))
    write(file, text)
    runs = sum(len(study.runs) for study in result.studies)
    return encodable(redact(f"{file}: {runs} runs, {len(text.encode()) / 1e6:.1f} MB, one file that needs no other"))


def encodable(text: str) -> str:
    """Without the half characters that a path which is not UTF-8 brings."""
    return text.encode("utf-8", "backslashreplace").decode()


def seen_from(folder: Path, result: Report) -> Report:
    """With the curves' paths as links of a file in a folder."""
    links = [one.curves and os.path.relpath(one.curves, folder) for one in result.studies]
    return replace(result, studies=[replace(one, curves=link) for one, link in zip(result.studies, links, strict=True)])


def write(path: Path, text: str) -> None:
    """Write a file in one go: who reads it meanwhile has the one before.

    Raises:
        ResourceError: If it cannot be written.
    """
    try:
        with Directory.open(path.parent, create=True) as directory:
            directory.replace(path.name, (text + "\n").encode())
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error


def watch(folders: Sequence[Path], seconds: float, make: Callable[[float | None], None]) -> None:
    """Make a page whenever its runs have changed, until Ctrl-C, and then once more as one that is not watched.

    Args:
        folders: That are reported on. Those without a run yet are waited for.
        seconds: Between two looks at them.
        make: Makes the page, of which it is told how often it is made.

    Raises:
        ConfigError: If one is no folder, or the page cannot be made.
    """
    seen: list[tuple[str, int, int]] = []
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = _state(folders)
            if found != seen:
                make(seconds)
                seen = found
            time.sleep(seconds)
    if seen:
        make(None)


def _state(folders: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of what runs have written; empty if there is no run yet."""
    try:
        runs = [run for paths in find_studies(folders).values() for run in paths]
    except ConfigError:
        if all(folder.is_dir() for folder in folders):
            return []
        raise
    found = []
    for file in (run / name for run in runs for name in _WATCHED):
        with contextlib.suppress(OSError):
            told = file.lstat()
            found.append((str(file), told.st_size, told.st_mtime_ns))
    return found
