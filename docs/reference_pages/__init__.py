"""The reference: pages of Markdown that are written from the code each time the documentation is built."""

from __future__ import annotations

from reference_pages import classes, commands, keys


def pages() -> dict[str, str]:
    """Each page's text, by its path in docs/reference."""
    written = {**classes.pages(), **keys.pages(), **commands.pages()}
    return {"index.md": _index(written), **written}


def _index(written: dict[str, str]) -> str:
    lines = ["# Reference", "", "Written from the code when these pages are built.", ""]
    for path, text in written.items():
        title, _, rest = text.removeprefix("# ").partition("\n")
        about = next((line for line in rest.splitlines() if line and line[0] not in "|`#-"), "")
        lines.append(f"- [{title}]({path}): {about}")
    names = "\n".join(path.removesuffix(".md") for path in written)
    return "\n".join(lines) + f"\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
