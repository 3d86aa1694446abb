"""What the commands have in common: where the configs are, and how an error reaches a person."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import hsw.naming  # noqa: F401  whoever composes a config needs its resolvers
from hsw.errors import ConfigError, HswError, Interrupted

_SECRET = re.compile(r"(api[_-]?key|secret|password|passwd|access[_-]?token|auth[_-]?token)", re.IGNORECASE)


def conf_folder() -> Path:
    """The configs: beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).resolve().parent / "conf"
    return inside if inside.is_dir() else inside.parents[1] / "conf"


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


class JobError(BaseException):
    """Carries a job's error, its cause, past Hydra."""


def describe(error: BaseException) -> tuple[str, int]:
    """An error as one sentence and an exit code."""
    if isinstance(error, Interrupted | HswError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted before anything was saved", 130
    if isinstance(error, MemoryError):
        return "out of memory", 6
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):  # some of Hydra's are OSErrors
        from hsw.suggest import explain

        assert isinstance(error, Exception)
        return explain(error, sys.argv[1:]), ConfigError.exit_code
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return f"cannot use{place}: {error.strerror or error}", 6
    return f"unexpected {type(error).__name__}: {error}", 1


def run_main(main: Callable[[], None]) -> None:
    """Run a command; an error ends the process with one sentence and its exit code."""
    try:
        try:
            main()
        except JobError as job:
            raise (job.__cause__ or job) from None
    except BrokenPipeError:  # whoever read the output has seen enough
        os._exit(0)
    except (Exception, KeyboardInterrupt) as error:
        message, code = describe(error)
        print(f"hsw: {message}", file=sys.stderr, flush=True)
        if code == 1 and message.startswith("unexpected "):
            traceback.print_exc()
        sys.exit(code)
