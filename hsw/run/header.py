"""What a run says of itself before it begins and after it has ended."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hsw.run.paste import is_package, resume_command

MOST_LINES = 8


def header(facts: Mapping[str, str]) -> str:
    """Facts about a run as aligned lines, one each.

    Args:
        facts: At most eight, by name. Empty ones are left out.

    Raises:
        ValueError: If there are more: nobody reads them.
    """
    told = {name: " ".join(text.split()) for name, text in facts.items() if text}
    if len(told) > MOST_LINES:
        raise ValueError(f"{len(told)} facts are too many for a header of {MOST_LINES} lines")
    width = max(map(len, told), default=0)
    return "\n".join(f"{name:{width}}  {text}" for name, text in told.items())


def tell(text: str, quiet: bool = False) -> None:
    """Show lines on stderr, beside the progress, and keep them in the run's log file.

    Args:
        text: One or more lines; on a terminal each is cut to its width, and the first word is dimmed.
        quiet: Only keep them.
    """
    record = logging.LogRecord("hsw", logging.INFO, __file__, 0, text.replace("\n", "\n    "), None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
    if quiet:
        return
    if not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    console.print()
    for line in text.splitlines():
        name, gap, rest = line.partition("  ")
        shown = Text.assemble((name + gap, "dim"), rest) if gap else Text(line, style="bold")
        # What is to be copied out of a terminal must not be cut.
        keeps = "python -m" in rest or "hsw-" in rest or name == "folder"
        console.print(shown, overflow="fold" if keeps else "ellipsis", no_wrap=not keeps, soft_wrap=keeps)
    console.print()


def commands(folder: Path, program: str, allow: Sequence[str] = ()) -> dict[str, str]:
    """What to type to evaluate a run and to resume it, by verb.

    Args:
        folder: Of the run.
        program: By which it was started: the installed command if it is hsw-train, else python -m.
        allow: Packages and places that the run's config may name.
    """
    installed = Path(program).name == "hsw-train"
    evaluate = ["hsw-eval"] if installed else ["python", "-m", "hsw.eval"]
    packages = [name for name in allow if is_package(name)]  # an evaluation sends nothing anywhere
    return {
        "evaluate": shlex.join([*evaluate, str(folder), *(word for name in packages for word in ("--allow", name))]),
        "resume": resume_command(folder, allow, "hsw-train" if installed else "python -m hsw.train"),
    }
