"""Where the configs are, and what no command line may bring into them."""

from __future__ import annotations

from collections.abc import Iterable

import hsw.config.resolvers  # noqa: F401  whoever composes a config needs its resolvers
from hsw import secrets
from hsw.config.place import conf_folder
from hsw.errors import ConfigError

__all__ = ["conf_folder", "refuse_null_choices", "refuse_secrets"]


def refuse_secrets(arguments: Iterable[str]) -> None:
    """Keep keys out of configs, which are saved, logged and uploaded.

    Raises:
        ConfigError: If an argument's name or value is a secret.
    """
    secrets.refuse(arguments)


def refuse_null_choices(arguments: Iterable[str]) -> None:
    """Refuse a choice that Hydra crashes on: null.

    Raises:
        ConfigError: If an argument is one.
    """
    for argument in arguments:
        group, _, choice = argument.partition("=")
        if choice == "null" and (conf_folder() / group).is_dir():
            raise ConfigError(f"{argument} is no choice; ~{group} leaves it out")
