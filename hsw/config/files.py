"""Where the configs are, and what no command line may bring into them."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import hsw.config.resolvers  # noqa: F401  whoever composes a config needs its resolvers
from hsw.config.plugins import installed_plugins
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


def search_folders(arguments: Iterable[str]) -> list[Path]:
    """Every folder in which a command line's choices may lie: hsw's, installed plugins', and those that it names."""
    folders = [conf_folder(), *(plugin.folder for plugin in installed_plugins())]
    given = list(arguments)
    for flag, value in itertools.pairwise([*given, ""]):
        name, equals, rest = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            folders.append(Path(rest if equals else value))
        elif name.lstrip("+") == "hydra.searchpath":
            for place in re.findall(r"[^\[\],'\"\s]+", rest):
                scheme, separator, path = place.rpartition("://")
                folders += _package_folders(path) if separator and scheme == "pkg" else [Path(path)]
    return [folder for folder in folders if folder.is_dir()]


def _package_folders(package: str) -> list[Path]:
    top, *inner = re.split("[./]", package)
    spec = importlib.util.find_spec(top)
    return [Path(place, *inner) for place in (spec.submodule_search_locations or ())] if spec else []


def study_mode(arguments: list[str]) -> list[str]:
    """A command line whose study says that it is a sweep, saying so itself: Hydra 1.4 does not look into studies."""
    said = [argument.startswith(("hydra.mode=", "+hydra.mode=")) for argument in arguments]
    if any(said):
        return arguments
    for index, argument in enumerate(arguments):
        group, _, study = argument.partition("=")
        for path in (folder / "experiments" / f"{study}.yaml" for folder in search_folders(arguments)):
            if group == "experiments" and path.is_file():
                with contextlib.suppress(yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeError):  # Hydra tells
                    if OmegaConf.select(OmegaConf.load(path), "hydra.mode") == "MULTIRUN":
                        return [*arguments[: index + 1], "hydra.mode=MULTIRUN", *arguments[index + 1 :]]
                break
    return arguments


def allowed_by_flag(arguments: list[str]) -> list[str]:
    """A command line with --allow <package>, which other commands know too, as the override allow=[<package>].

    Raises:
        ConfigError: If the flag's value is no name of a package.
    """
    rest: list[str] = []
    packages: list[str] = []
    given = iter(arguments)
    for argument in given:
        flag, equals, value = argument.partition("=")
        if flag != "--allow":
            rest.append(argument)
            continue
        packages.append(value if equals else next(given, ""))
        if not re.fullmatch(r"[A-Za-z_][\w.]*", packages[-1]):
            raise ConfigError(f"--allow {packages[-1]!r} names no package; --allow my_package trusts one")
    if not packages:
        return arguments
    for said in [argument for argument in rest if argument.startswith("allow=")]:
        packages += re.findall(r"[\w.]+", said.partition("=")[2])
        rest.remove(said)
    overrides = [index for index, argument in enumerate(rest) if not argument.startswith("-") and "=" in argument]
    place = overrides[0] if overrides else len(rest)  # Hydra 1.3 wants overrides in a row
    return [*rest[:place], f"allow=[{','.join(dict.fromkeys(packages))}]", *rest[place:]]


def refuse_choices(arguments: Iterable[str]) -> None:
    """Refuse two choices that Hydra does not: null, which it crashes on, and an unknown preset, which it passes over.

    Raises:
        ConfigError: If an argument is one of them.
    """
    arguments = list(arguments)
    folders = search_folders(arguments)
    presets = sorted({path.stem for folder in folders for path in (folder / "preset").glob("*.yaml")})
    for argument in arguments:
        group, _, choices = argument.partition("=")
        if choices == "null" and any((folder / group).is_dir() for folder in folders):
            raise ConfigError(f"{argument} is no choice; ~{group} leaves it out")
        for choice in choices.split(",") if group == "preset" else ():
            if choice not in presets:
                raise ConfigError(f"there is no preset={choice} (choices: {', '.join(presets)})")
