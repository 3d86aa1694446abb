"""Folders on the command line, whatever characters are in their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hsw.errors import ConfigError
from hsw.run.paste import hydra_value, unquoted

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")


def with_folders(arguments: Sequence[str]) -> list[str]:
    """A command line that Hydra reads as it was meant: its folders quoted, and a resumed run's own as Hydra's too.

    Raises:
        ConfigError: If there is no run to resume.
    """
    found: list[str] = []
    place: list[str] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "resume" and value not in ("", "null"):
            folder = next((one for one in (value, unquoted(value)) if os.path.lexists(Path(one, "config.yaml"))), None)
            if folder is None:
                raise ConfigError(f"there is no run in {unquoted(value)}: it has no config.yaml")
            argument = f"resume={hydra_value(folder)}"
            place = [f"hydra.run.dir={hydra_value(_for_hydra(folder))}"]  # also its log file is the run's
        elif name in _FOLDERS and value and "${" not in value and value == unquoted(value):
            argument = f"{name}={hydra_value(value)}"
        found.append(argument)
    return found + place


def _for_hydra(folder: str) -> str:
    """A path without what Hydra takes for an interpolation each time that it is read."""
    if "${" not in folder:
        return folder
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # open for as long as the process lives
    return f"/dev/fd/{descriptor}"
