"""What Sphinx is told: write the reference before anything is read, and make docstrings and links what it takes."""

from __future__ import annotations

import inspect
import os
import re
import shutil
from pathlib import Path
from typing import Any

from hsw.signatures import signature_of
from reference_pages import pages
from reference_pages.docstrings import kind

_ROOT = Path(__file__).resolve().parents[2]
_ENTRY = re.compile(r"^(    )([a-z]\w*(?:, [a-z]\w*)*): (.*)$")
_LINK = re.compile(r"(?<=\]\()((?:\.\./)+)([^)#\s]+)(#[^)\s]*)?(?=\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", link_files)
    app.connect("autodoc-process-docstring", expand_docstring, priority=100)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app: Any) -> None:
    """The reference, and a page for each file of the repository that the documentation links to."""
    place = Path(app.srcdir, "reference")
    shutil.rmtree(place, ignore_errors=True)
    sources = [path for path in Path(app.srcdir).rglob("*.md") if "reference" not in path.parts]
    texts = {place / name: text for name, text in pages().items()}
    waiting = [(path, path.read_text(encoding="utf-8")) for path in sources]
    names: list[str] = []
    while waiting:
        page, text = waiting.pop()
        for linked in _linked_files(page, text):
            target = place / _page_of(linked)
            if target not in texts:
                texts[target] = _shown(linked, target)
                names.append(_page_of(linked))
                waiting += [(linked, linked.read_text(encoding="utf-8"))] if linked.suffix == ".md" else []
    listed = "\n".join(sorted(names))
    texts[place / "files.md"] = f"# Files\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _linked_files(page: Path, text: str) -> list[Path]:
    """The texts of the repository, outside of docs/, that a page links to."""
    found = [Path(os.path.normpath(page.parent / target)) for target in re.findall(r"\]\(([^)#\s:]+)", text)]
    docs = _ROOT / "docs"
    return [path for path in dict.fromkeys(found) if _has_page(path) and not path.is_relative_to(docs)]


def _has_page(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix in (".md", *_LANGUAGES))


def _page_of(path: Path) -> str:
    return f"files/{path.relative_to(_ROOT).as_posix()}.md"


def _shown(path: Path, page: Path) -> str:
    """A file's page: Markdown as it is, code in a block, and a folder as the list of its files."""
    name = path.relative_to(_ROOT).as_posix()
    if path.is_dir():
        inside = sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.suffix in (".py", ".yaml"))
        return f"# {name}\n\n" + "\n".join(f"- `{one}`" for one in inside) + "\n"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        title = "" if text.startswith("# ") else f"# {name}\n\n"
        return title + _relinked(text, path, page)
    fence = "`" * 4
    return f"# {name}\n\n{fence}{_LANGUAGES[path.suffix]}\n{text}{fence}\n"


def _relinked(text: str, path: Path, page: Path) -> str:
    """Markdown that has moved: its links lead where they led."""

    def moved(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / found[2]))
        if "://" in found[2] or not target.exists():
            return found[0]
        if _has_page(target) and not target.is_relative_to(_ROOT / "docs"):
            target = page.parents[len(Path(_page_of(path)).parts) - 1] / _page_of(target)
        return f"{found[1]}{os.path.relpath(target, page.parent)}"

    return re.sub(r"(\]\(|<img src=\")([^)#\s\"]+)", moved, text)


def link_files(app: Any, docname: str, source: list[str]) -> None:
    """A link out of docs/ leads to the file's page."""
    page = Path(app.srcdir, f"{docname}.md")
    if page.is_relative_to(Path(app.srcdir, "reference")):
        return

    def paged(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / (found[1] + found[2])))
        if not _has_page(target) or target.is_relative_to(_ROOT / "docs"):
            return found[0]
        return os.path.relpath(Path(app.srcdir, "reference", _page_of(target)), page.parent) + (found[3] or "")

    source[0] = _LINK.sub(paged, source[0])
    if docname == "index":  # a section may have no page yet
        patterns = re.findall(r"^\S*\*$", source[0], re.MULTILINE)
        for pattern in (one for one in patterns if not any(Path(app.srcdir).glob(f"{one}.md"))):
            source[0] = source[0].replace(f"\n{pattern}\n", "\n")


def expand_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Names with one meaning have it each, and say what they may be; a parameter's kind stands in parentheses."""
    hints = signature_of(obj).hints if inspect.isclass(obj) or inspect.isroutine(obj) else {}
    written: list[str] = []
    several: list[tuple[str, list[str]]] = []  # entries that share the lines that follow

    def flush() -> None:
        for head, rest in several:
            written.extend([head, *rest])
        several.clear()

    for line in lines:
        entry = _ENTRY.match(line)
        if entry and (names := entry[2].split(", ")) and (len(names) > 1 or names[0] in hints):
            flush()
            several += [(f"    {one}{_kind_of(hints, one)}: {entry[3]}", []) for one in names]
        elif several and line.startswith("        "):
            for _, rest in several:
                rest.append(line)
        else:
            flush()
            written.append(line)
    flush()
    lines[:] = [_plain(line) for line in written]


def _plain(line: str) -> str:
    """A docstring is no reStructuredText: its stars and underscores are what they are, and `x` is code."""
    parts = re.split(r"``?([^`]+)``?", line)
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def _kind_of(hints: dict[str, Any], name: str) -> str:
    return f" ({kind(hints[name])})" if name in hints else ""
