"""Every command: its help, and the codes that it ends with."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

from hsw import errors
from reference_pages.docstrings import first_sentence, section
from reference_pages.keys import prose, table

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_WIDTH = {"COLUMNS": "100", "NO_COLOR": "1"}


def pages() -> dict[str, str]:
    """The commands' page, and the exit codes'."""
    return {"commands.md": _commands(), "exit-codes.md": _codes()}


def commands() -> dict[str, str]:
    """The module of each command, by name, from pyproject.toml."""
    scripts: dict[str, str] = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
    return {name: place.partition(":")[0] for name, place in scripts.items()}


@functools.cache
def help_of(module: str) -> str:
    """What --help prints. hsw.train's is Hydra's, which takes a process of its own."""
    if module == "hsw.train":
        line = [sys.executable, "-m", module, "--help"]
        return subprocess.run(line, capture_output=True, text=True, check=True, env={**os.environ, **_WIDTH}).stdout
    out, argv, environ = io.StringIO(), sys.argv, dict(os.environ)
    sys.argv = [module, "--help"]
    os.environ.update(_WIDTH)
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            importlib.import_module(module).main()
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environ)
    return out.getvalue()


def _commands() -> str:
    parts = [
        "# Commands",
        "Each is a module and a script: `python -m hsw.eval` is `hsw-eval`. This is what `--help` prints.",
    ]
    for name, module in commands().items():
        about = first_sentence(importlib.import_module(module).__doc__).split(": python")[0].rstrip(".:")
        parts.append(f"## {name}\n\n{prose(about)}. [Its exit codes](exit-codes.md#{name}).")
        parts.append(f"```text\n$ python -m {module} --help\n{help_of(module).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def codes() -> dict[str, type]:
    """Every error that ends a command with a code of its own, by its name."""
    found = {name: thing for name, thing in vars(errors).items() if inspect.isclass(thing)}
    return {name: thing for name, thing in found.items() if thing.__module__ == errors.__name__}


def _codes() -> str:
    rows = [("0", "", "Done.")]
    rows += [(code_of(name), f"{{py:obj}}`~hsw.errors.{name}`", prose(about)) for name, about in _meanings().items()]
    parts = [
        "# Exit codes",
        "An error is one sentence on stderr that begins with `hsw:`; one that was not foreseen has code 1 and "
        "a traceback. Any command ends with 6 where disk or memory gives out, with 130 by Ctrl-C and 143 by SIGTERM.",
        table(("code", "error", "when"), sorted(rows)),
    ]
    for name, module in commands().items():
        told = [(code_of(error), f"`{error}`", prose(when)) for error, when in raised_by(module).items()]
        parts += [f"## {name}", table(("code", "error", "when"), [("0", "", "Done."), *sorted(told)])]
    return "\n\n".join(parts)


def _meanings() -> dict[str, str]:
    found = {name: thing for name, thing in vars(errors).items() if inspect.isclass(thing)}
    own = {name: thing for name, thing in found.items() if thing.__module__ == errors.__name__}
    return {name: first_sentence(thing.__doc__) for name, thing in own.items() if name != "EnvHangs"}


def code_of(error: str) -> str:
    """The code that an error of hsw.errors ends a command with."""
    special = {"Interrupted": f"{128 + signal.SIGINT}, {128 + signal.SIGTERM}", "SweepError": "the first one's"}
    return special.get(error) or str(getattr(errors, error).exit_code)


def raised_by(module: str) -> dict[str, str]:
    """The errors that a command ends with, and when: what its main says."""
    said = section(importlib.import_module(module).main.__doc__, "Raises")
    return {error: when for error, when in said.items() if error in _meanings()}
