"""Commands that are printed to be pasted: quoted for a shell, and for Hydra's grammar within."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
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


def unquoted(value: str) -> str:
    """What a value in the quotes of Hydra's grammar stands for."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "\"'":
        return value
    quote = value[0]
    inner = re.sub(rf"(\\+)({quote}|$)", lambda found: "\\" * (len(found[1]) // 2) + found[2], value[1:-1])
    return inner.replace("\\${", "${")


def is_package(word: str) -> bool:
    """Whether a word of allow=[...] names a package, and not a place that loggers may write or send to."""
    return all(part.isidentifier() for part in word.split("."))


def allow_override(allow: Iterable[str]) -> str:
    """The override that trusts packages and places, for Hydra; not quoted for a shell."""
    return f"allow=[{','.join(map(hydra_value, allow))}]"


def resume_command(folder: Path | str, allow: Iterable[str] = (), program: str = "python -m hsw.train") -> str:
    """What continues a run, for a shell.

    Args:
        folder: Of the run.
        allow: Packages and places that the run's config names, and only a command line trusts.
        program: As it is typed.
    """
    allow = list(allow)
    trusted = [allow_override(allow)] if allow else []
    return f"{program} {shlex.join(['resume=' + hydra_value(str(folder)), *trusted])}"


def eval_command(folder: Path | str) -> str:
    """What evaluates a run, for a shell."""
    name = str(folder)
    return f"python -m hsw.eval {shlex.quote(name if not name.startswith('-') else './' + name)}"
