"""Where a stored config would have loggers and callbacks write or send: a place outside of the run folder counts only
if the command line names it too.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hsw.config.targets import packages_to_allow, resolve_target
from hsw.directory import is_within
from hsw.errors import ConfigError
from hsw.run.logger import Logger
from hsw.run.paste import allow_override, is_package

_BY_FORM = ("logger", "callbacks")  # groups whose targets may be of any package, and tell of their places by no other
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*:(?!\s)|[~$]|.*[/\\]")


class Place(NamedTuple):
    """What a config says of a place outside of the run folder."""

    key: str
    value: str

    @property
    def word(self) -> str:
        """What allow=[...] calls it: never a package."""
        return f"{self.key.rpartition('.')[2]}:{self.value}" if is_package(self.value) else self.value


def places_outside(
    config: Mapping[str, Any], allowed: Collection[str] = (), folder: Path | None = None
) -> Iterator[Place]:
    """The places outside of the run folder that a plain config names, but for those that the environment names too.

    A target tells by `destinations` which of its options are some. Of a logger or callback that does not, every
    address is one, and every path.

    Args:
        config: Of a run, or a part of it by its root keys.
        allowed: Packages that its targets may come from.
        folder: The run's.
    """
    for key, node in config.items():
        yield from _walk(node, key, allowed, key in _BY_FORM, folder)


def check_places(
    config: Mapping[str, Any], allowed: Collection[str], folder: Path | None = None, typed: Collection[str] = ()
) -> None:
    """Refuse a place outside of the run folder that only a folder's config names.

    Args:
        config, folder: As in places_outside.
        allowed: What the command line trusts, packages and places.
        typed: Values that the command line repeats.

    Raises:
        ConfigError: Naming the first, and what would trust it.
    """
    for place in places_outside(config, allowed, folder):
        if place.word not in allowed and place.value not in typed:
            without = ", and logger=local does without" if place.key.startswith("logger.") else ""
            raise ConfigError(
                f"{place.key}={place.value} leads out of the run folder, and a folder is not trusted to say where; "
                f"{shlex.quote(allow_override([*allowed, place.word]))} on the command line trusts it{without}"
            )


def words_to_allow(config: dict[str, Any], allowed: Collection[str], folder: Path | None = None) -> list[str]:
    """What a command line must trust to resume a run of this config: packages, and places outside of its folder."""
    words = [*packages_to_allow(config, allowed), *(place.word for place in places_outside(config, allowed, folder))]
    return list(dict.fromkeys(words))


def _walk(node: Any, path: str, allowed: Collection[str], by_form: bool, folder: Path | None) -> Iterator[Place]:
    told: Collection[str] | None = None
    if isinstance(node, dict) and "_target_" in node:
        target = resolve_target(node["_target_"], allowed)
        told = target.destinations(node) if inspect.isclass(target) and issubclass(target, Logger) else None
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        name = f"{path}.{key}"
        if isinstance(value, dict | list):
            yield from _walk(value, name, allowed, by_form and told is None, folder)
        elif isinstance(value, str) and value and not str(key).startswith("_"):
            leads_out = key in told if told is not None else by_form and bool(_ADDRESS.match(value))
            if leads_out and (folder is None or not is_within(value, folder)):
                yield Place(name, value)
