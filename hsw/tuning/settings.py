"""What `tune.*` says, and how a command line of the tuner is taken apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from hsw.bounds import Range
from hsw.config.arguments import prepare_overrides
from hsw.config.check import check_values
from hsw.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")


@dataclass
class Settings:
    """The tuner's own settings.

    Attributes:
        name: Of the study, whose folder is <dir>/<name>; null is <agent>_<env>.
        dir: Where studies are.
        space: A choice of conf/space; null is that of the agent, unless the command line says what to vary.
        trials: How many configurations are tried; null is 20, and of a grid all.
        seeds: Runs of each, with the seeds seed, seed + 1, ...
        sampler: What proposes them.
        pruner: What ends a trial early: seeds that race, budgets that grow, both, or nothing.
        workers: Trials at a time, each in a process of its own.
        metric: What evaluations are judged by.
        last: A seed's score is the mean of so many of its last evaluations.
        second: Also minimise the seconds that a seed takes, or the steps to the threshold.
        threshold: Of the metric.
        p: A trial is given up once its seeds are worse than the best trial's with this probability of a mistake.
        rungs: Budgets that a trial is tried with, the last of which is num_train_steps.
        reduction: Each is so many times the one before, and the best one of so many trials goes on.
        rescale: Where a schedule depends on the budget, a rung begins anew instead of being refused.
        confirm: The best so many trials run again on fresh seeds; 0 leaves that out.
        confirm_seeds: Each on so many.
        baseline: The configuration that nothing was varied in runs on them as well.
    """

    name: str | None = None
    dir: str = "tune"
    space: str | None = None
    trials: Annotated[int | None, Range(1, 100_000)] = None
    seeds: Annotated[int, Range(1, 1000)] = 2
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["none", "race", "halving", "both"] = "none"
    workers: Annotated[int, Range(1, 1024)] = 1
    metric: Literal["return", "success"] = "return"
    last: Annotated[int, Range(1)] = 1
    second: Literal["none", "time", "steps"] = "none"
    threshold: float | None = None
    p: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.1
    rungs: Annotated[int, Range(2, 20)] = 3
    reduction: Annotated[int, Range(2, 100)] = 3
    rescale: bool = False
    confirm: Annotated[int, Range(0)] = 3
    confirm_seeds: Annotated[int, Range(1, 1000)] = 5
    baseline: bool = True

    @property
    def races(self) -> bool:
        return self.pruner in ("race", "both")

    @property
    def halves(self) -> bool:
        return self.pruner in ("halving", "both")

    def identity(self) -> dict[str, Any]:
        """What a study keeps for as long as it lives."""
        changeable = ("name", "dir", "space", "trials", "workers", "confirm", "confirm_seeds", "baseline")
        return {f"tune.{key}": value for key, value in asdict(self).items() if key not in changeable}

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            ConfigError: Naming them.
        """
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ConfigError("tune.name must be 1 to 100 letters, digits and . _ + -, and not begin with . + or -")
        if (self.second == "steps") != (self.threshold is not None):
            raise ConfigError("tune.second=steps counts the steps to tune.threshold=<score>; give both, or neither")
        if self.second != "none" and self.pruner != "none":
            raise ConfigError(
                f"tune.pruner={self.pruner} compares by one objective, and tune.second={self.second} adds another; "
                "leave one of them out"
            )
        if self.races and 0.5 ** (self.seeds - 1) > self.p:
            needed = next(n for n in range(2, 1000) if 0.5 ** (n - 1) <= self.p)
            raise ConfigError(
                f"tune.pruner={self.pruner} can end no trial of tune.seeds={self.seeds} at tune.p={self.p:g}: that "
                f"takes {needed} seeds at least; raise one of the two"
            )


@dataclass
class Command:
    """A command line of the tuner.

    Attributes:
        settings: What tune.* said.
        overrides: Of the runs, in Hydra's form, without those that vary.
        swept: Those that vary, <key>=<Hydra's sweep>.
        told: Names of the settings that were given.
    """

    settings: Settings
    overrides: list[str]
    swept: list[str]
    told: set[str]


def read_command(arguments: Sequence[str]) -> Command:
    """Take a command line apart.

    Raises:
        ConfigError: For the first thing that is wrong.
    """
    parser = OverridesParser.create()
    told: dict[str, Any] = {}
    others: list[str] = []
    for argument in _without_flags(arguments):
        if argument.startswith("tune."):
            value: Any = parser.parse_override(argument).value()
            told[argument.partition("=")[0].removeprefix("tune.")] = getattr(value, "text", value)
        elif argument.partition("=")[0] == "tune":
            raise ConfigError(f"{argument}: the tuner's settings are given one by one, such as tune.trials=20")
        else:
            others.append(argument)
    known = check_values(told, Settings, "tune")
    settings = Settings(**known)
    settings.check()
    overrides: list[str] = []
    swept: list[str] = []
    for override in prepare_overrides(others):
        (swept if parser.parse_override(override).is_sweep_override() else overrides).append(override)
    for override in (*overrides, *swept):
        _refuse(override)
    return Command(settings, overrides, swept, set(known))


def _without_flags(arguments: Sequence[str]) -> list[str]:
    """With --config-dir as an override, which it is for every command."""
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folder = value if equals else next(given, "")
            if not Path(folder).is_dir():
                raise ConfigError(f"there is no folder {folder} to take choices from")
            place = str(Path(folder).absolute()).replace("\\", "\\\\").replace("'", "\\'")
            rest.append(f"hydra.searchpath=['file://{place}']")
        elif argument.startswith("-"):
            raise ConfigError(f"the tuner has no flag {flag}; --help lists what there is")
        else:
            rest.append(argument)
    return rest


_OWN = {
    "seed": "a trial's seeds are seed, seed + 1, ...: seed=<the first> tune.seeds=<how many>",
    "num_train_steps": "it is the budget of every trial, and no parameter",
    "allow": "which packages are trusted is for the command line to say, once",
}


def _refuse(override: str) -> None:
    """Refuse what is none of the tuner's.

    Raises:
        ConfigError: Saying what to do instead.
    """
    name, _, value = override.lstrip("+~").partition("=")
    root = re.split("[.@/]", name)[0]
    if root == "hydra" and name != "hydra.searchpath":
        raise ConfigError(f"{name} is the tuner's to set; where studies go is tune.dir=<folder> tune.name=<name>")
    if root in ("resume", "from"):
        raise ConfigError(f"{root}: a study goes on by the same command, and begins with no run; leave it out")
    if root == "experiments":
        raise ConfigError("experiments: a study of conf/experiments lists its jobs itself; say agent=... env=... here")
    if root == "fail_fast" and value != "false":
        raise ConfigError("fail_fast: a failed trial ends no study; leave it out")


def needs_optuna() -> None:
    """Refuse to go on without Optuna.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(f"the tuner needs the extra tune ({error}): pip install 'hsw[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def plain_value(value: Any) -> Any:
    """A value of Hydra's parser, without its quotes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    return {key: plain_value(item) for key, item in value.items()} if isinstance(value, dict) else value


def refuse_swept(keys: Sequence[str]) -> None:
    """Refuse to vary what is no parameter.

    Raises:
        ConfigError: Naming it.
    """
    for key in keys:
        if key in _OWN:
            raise ConfigError(f"{key} cannot be varied: {_OWN[key]}")
