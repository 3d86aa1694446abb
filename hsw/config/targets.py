"""Which targets a config may name. A run folder is data: nothing in it may execute."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from hsw.config.plugins import trusted_packages
from hsw.errors import ConfigError

# Rooms of hsw whose functions may be targets; entry points and run services are not for configs.
_FUNCTIONS = ("hsw.env", "hsw.network", "hsw.storage", "hsw.algorithm", "hsw.agent")
_CLASSES = ("hsw", "torch.optim", "torch.nn.modules", "gymnasium")


def resolve_target(name: str, allowed: Iterable[str] = ()) -> Any:
    """The class, function or factory that a _target_ names, if it is one that may run.

    The name's package is checked before anything is imported, and then the object itself: a name such as
    torch.nn.functional.torch.load begins well and is not a class of torch.nn.

    Args:
        name: Dotted.
        allowed: Further packages that the command line trusts.

    Raises:
        ConfigError: If there is no such target, or it is not to be trusted.
    """
    trusted = (*allowed, *trusted_packages())
    refusal = ConfigError(
        f"_target_={name} is not allowed: a target is a class or function of hsw, an optimiser or module of torch or a "
        f"class of gymnasium{''.join(f', or anything in {package}' for package in trusted)}; "
        "allow=[my_package] on the command line trusts another package"
    )
    if not isinstance(name, str) or not _inside(name, ("hsw", "torch", "gymnasium", *trusted)):
        raise refusal
    found = _locate(name)
    owner = found.__self__ if inspect.ismethod(found) else found  # a factory classmethod belongs to its class
    module = getattr(owner, "__module__", "") or ""
    if _inside(module, trusted):
        return found
    if inspect.isclass(owner) and _inside(module, _CLASSES):
        return found
    if inspect.isfunction(found) and found.__qualname__ == found.__name__ and _inside(module, _FUNCTIONS):
        return found
    raise refusal


def walk_targets(config: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a plain config that has a _target_, with its path."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield path, config
        for key, value in config.items():
            yield from walk_targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from walk_targets(value, f"{path}.{index}")


def check_env_modules(config: dict[str, Any], allowed: Iterable[str]) -> None:
    """Refuse an env id that imports a module ("my_pkg.module:MyEnv-v0") which the command line does not trust.

    Raises:
        ConfigError: If a run folder's config names such a module.
    """
    for path, node in walk_targets(config):
        module, colon, _ = str(node.get("id", "")).partition(":")
        if colon and not _inside(module, ("hsw.env", *allowed, *trusted_packages())):
            package = module.split(".")[0]
            raise ConfigError(
                f"{path}.id={node['id']} would import {module}, and a run folder is not trusted to; "
                f"allow=[{package}] on the command line trusts it"
            )


def _inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _locate(name: str) -> Any:
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise ConfigError(f"_target_={name} needs {error.name}, which is not installed") from error
            continue
        except Exception as error:  # whatever a module of somebody's does when it is imported
            from hsw.env.place import config_error  # torch's second

            raise config_error(f"_target_={name} cannot be imported:", error) from error
        try:
            for part in parts[split:]:
                found = getattr(found, part)
        except AttributeError:
            break
        except ModuleNotFoundError as error:  # of a module that is read when its name is
            raise ConfigError(f"_target_={name} needs {error.name}, which is not installed") from error
        return found
    raise ConfigError(f"_target_={name} does not exist")
