"""Where the configs are, and what no command line may bring into them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import hsw.config.resolvers  # noqa: F401  whoever composes a config needs its resolvers
from hsw.config.place import conf_folder
from hsw.errors import ConfigError

__all__ = ["conf_folder", "refuse_null_choices", "refuse_secrets"]

_SECRET = re.compile(r"(api[_-]?key|secret|password|passwd|access[_-]?token|auth[_-]?token)", re.IGNORECASE)


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


def refuse_null_choices(arguments: Iterable[str]) -> None:
    """Refuse a choice that Hydra crashes on: null.

    Raises:
        ConfigError: If an argument is one.
    """
    for argument in arguments:
        group, _, choice = argument.partition("=")
        if choice == "null" and (conf_folder() / group).is_dir():
            raise ConfigError(f"{argument} is no choice; ~{group} leaves it out")
