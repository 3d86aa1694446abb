"""Installed packages that bring configs of their own, as entry points say: [project.entry-points."hsw.plugins"].

`mine = "my_package"` stands for the folder my_package/conf, and `mine = "my_package:choices"` for my_package/choices.
The folder joins Hydra's search path, after hsw's own, and what the package defines may be named in configs.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

GROUP = "hsw.plugins"


class InstalledPlugin(NamedTuple):
    """A package that brings configs: its dotted name and the folder that they are in."""

    package: str
    folder: Path


@functools.cache
def installed_plugins() -> tuple[InstalledPlugin, ...]:
    """Every package that names a folder of configs, in the order of the entry points' names; none is imported."""
    found: list[InstalledPlugin] = []
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        package, _, folder = entry.value.partition(":")
        place = _folder_of(package.strip())
        plugin = InstalledPlugin(package.strip(), (place or Path()) / (folder.strip() or "conf"))
        if place is None or not plugin.folder.is_dir():
            logging.getLogger("hsw").warning(
                "the installed plugin %s names %s, which has no such folder of configs; it is left out",
                entry.name,
                entry.value,
            )
        elif plugin not in found:
            found.append(plugin)
    return tuple(found)


def trusted_packages() -> tuple[str, ...]:
    """The packages whose targets may be named without `allow`."""
    return tuple(plugin.package for plugin in installed_plugins())


def only_trusted(config: Any) -> AbstractContextManager[None]:
    """A context in which nothing is imported but what a run's config, or the installed packages, are trusted with."""
    from hsw.env.trust import only_trusting  # and NumPy with it

    return only_trusting((*config.allow, *trusted_packages()))


class InstalledConfigs(SearchPathPlugin):
    """Adds the folders of installed plugins to Hydra's search path; hsw's own choices win over theirs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin in installed_plugins():
            search_path.append(f"hsw plugin {plugin.package}", f"file://{plugin.folder}")


def register_plugins() -> None:
    """Tell Hydra of InstalledConfigs, before it composes anything."""
    Plugins.instance().register(InstalledConfigs)


def _folder_of(package: str) -> Path | None:
    """Where a package lies; only its top is looked up, because Python imports the parents of anything deeper."""
    top, *inner = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    candidates = [Path(place, *inner) for place in places]  # a namespace package has several
    return next((path.absolute() for path in candidates if path.is_dir()), None)
