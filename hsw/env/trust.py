"""What an environment's name may import while a run folder's config is built: what somebody stored is not trusted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hsw.errors import CorruptError

_trusted: tuple[str, ...] | None = None  # of the whole process: environments are also built by threads
_IMPORTS = re.compile(r"\s*([A-Za-z_][\w.]*):[A-Za-z_]")  # "module:attribute", which Gymnasium and others import
# Environments of other libraries that make yet another one of the name in their kwargs.
_MAKERS = ("shimmy",)


@contextlib.contextmanager
def only_trusting(packages: Iterable[str]) -> Iterator[None]:
    """Within this context make_env imports no modules but hsw's and those of these packages."""
    global _trusted
    before, _trusted = _trusted, ("hsw.env", *packages)
    try:
        yield
    finally:
        _trusted = before


def check_import(module: str, where: str = "env.id") -> None:
    """Refuse to import a module that is not trusted here.

    Args:
        module: Dotted.
        where: The key that names it.

    Raises:
        CorruptError: Naming what would trust it.
    """
    if _trusted is None or any(module == package or module.startswith(package + ".") for package in _trusted):
        return
    package = module.split(".")[0]
    raise CorruptError(
        f"{where} would import {module}, and a run folder is not trusted to; "
        f"--allow {package} on the command line trusts it (from Python allow=['{package}'])"
    )


def check_kwargs(kwargs: Any, path: str = "env.kwargs") -> None:
    """Refuse arguments of an environment that name a module to import.

    Raises:
        CorruptError: If one does that is not trusted here.
    """
    if isinstance(kwargs, str):
        if named := _IMPORTS.match(kwargs):
            check_import(named[1], f"{path}={kwargs}")
    elif isinstance(kwargs, Mapping):
        for key, value in kwargs.items():
            check_kwargs(str(key), path)
            check_kwargs(value, f"{path}.{key}")
    elif isinstance(kwargs, list | tuple):
        for index, value in enumerate(kwargs):
            check_kwargs(value, f"{path}.{index}")


def check_entry_point(entry_point: Any) -> None:
    """Refuse an environment that makes another one, of a name that only it looks into.

    Raises:
        CorruptError: If its package is not trusted here.
    """
    if isinstance(entry_point, str) and entry_point.split(".")[0] in _MAKERS:
        check_import(entry_point.partition(":")[0])
