"""Commands that are printed to be pasted: quoted for a shell, and for Hydra's grammar within."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_PLAIN = re.compile(r"[\w./+-]+(?: [\w./+-]+)*", re.ASCII)


def hydra_value(text: str) -> str:
    """A text as a value of Hydra's command line, whatever is in it: quoted unless it is plain."""
    if _PLAIN.fullmatch(text) and not text.startswith(("-", "+")):
        return text
    return hydra_quoted(text.replace("${", "\\${"))


def hydra_quoted(text: str) -> str:
    """In double quotes, for Hydra's grammar, in which a backslash is one unless a quote follows."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text) + '"'


def resume_command(folder: Path | str) -> str:
    """What continues a run, for a shell."""
    return f"python -m hsw.train {shlex.quote('resume=' + hydra_value(str(folder)))}"


def eval_command(folder: Path | str) -> str:
    """What evaluates a run, for a shell."""
    name = str(folder)
    return f"python -m hsw.eval {shlex.quote(name if not name.startswith('-') else './' + name)}"
