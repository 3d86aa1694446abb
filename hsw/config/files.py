"""Where the configs are, and what no command line may bring into them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import hsw.config.resolvers  # noqa: F401  whoever composes a config needs its resolvers
from hsw.errors import ConfigError

_SECRET = re.compile(r"(api[_-]?key|secret|password|passwd|access[_-]?token|auth[_-]?token)", re.IGNORECASE)


def conf_folder() -> Path:
    """The configs: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def refuse_secrets(arguments: Iterable[str]) -> None:
    """Keep keys out of configs, which are saved, logged and uploaded.

    Raises:
        ConfigError: If an argument's name or value is a secret.
    """
    secrets = [value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= 8]
    for argument in arguments:
        name, _, value = argument.partition("=")
        if _SECRET.search(name):
            raise ConfigError(f"{name} looks like a secret, and configs are saved; set it in the environment instead")
        if any(secret in value for secret in secrets):
            raise ConfigError(
                f"{name} has the value of a secret in the environment, and configs are saved; leave it there"
            )


def refuse_choices(arguments: Iterable[str]) -> None:
    """Refuse two choices that Hydra does not: null, which it crashes on, and an unknown preset, which it passes over.

    Raises:
        ConfigError: If an argument is one of them.
    """
    presets = sorted(path.stem for path in (conf_folder() / "preset").glob("*.yaml"))
    for argument in arguments:
        group, _, choices = argument.partition("=")
        if choices == "null" and (conf_folder() / group).is_dir():
            raise ConfigError(f"{argument} is no choice; ~{group} leaves it out")
        for choice in choices.split(",") if group == "preset" else ():
            if choice not in presets:
                raise ConfigError(f"there is no preset={choice} (choices: {', '.join(presets)})")
