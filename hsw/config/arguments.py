"""The command line as people write it, made into what Hydra takes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from hsw.config.words import SYNONYMS
from hsw.errors import ConfigError
from hsw.ranks import of_environment

# Hydra's flags, and which of them are followed by a value.
_VALUED = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p"}
_PLAIN = {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"}
_PLAIN |= {"--shell-completion", "-sc"}
_INFO = {"--info", "-i"}
_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_WORD = re.compile(r""""[^"]*"|'[^']*'|[^\s,\[\]]+""")  # of a list
_LIST = re.compile(r"logger=\[([\w\s,]+)\]")


def prepare(arguments: Sequence[str]) -> list[str]:
    """Arguments in an order and a form that Hydra takes: flags first, then overrides.

    Raises:
        ConfigError: If there is no such flag, or a flag lacks its value, or a sweep is asked for that is no grid.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(argument)
        elif name in _INFO:
            topic = rest.pop(0) if rest and rest[0] in _TOPICS and not equals else "all"
            flags.append(argument if equals else f"{argument}={topic}")
        elif name in _VALUED:
            if not equals and not rest:
                raise ConfigError(f"{name} needs a value")
            flags.append(argument if equals else f"{argument}={rest.pop(0)}")
        elif name in _PLAIN:
            flags.append(argument)
        else:
            raise _no_flag(name)
    return flags + prepare_overrides(overrides)


def _no_flag(name: str) -> ConfigError:
    """A flag that is not there: most likely misspelt, else a key as argparse's programs have it, --seed 3."""
    word = name.lstrip("-").replace("-", "_")
    key = SYNONYMS.get(word, (word,))[0]
    near = difflib.get_close_matches(name, sorted(_VALUED | _PLAIN | _INFO), 1, 0.8)
    meant = f"did you mean {near[0]}?" if near else f"values are given as key=value, such as {key}=<value>"
    return ConfigError(f"there is no flag {name}; {meant}")


def prepare_overrides(overrides: Iterable[str]) -> list[str]:
    """Overrides in the form that Hydra takes.

    A key of a free-form mapping (env.kwargs) need not be there yet, and of several loggers each has a name of its own:
    logger=[wandb,tensorboard] makes logger.wandb and logger.tensorboard.

    Raises:
        ConfigError: If a sweeper is chosen that is none of hsw's.
    """
    prepared: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        listed = _LIST.fullmatch(override)
        names = [name.strip() for name in listed[1].split(",")] if listed else []
        if key == "hydra/sweeper" and value != "basic":
            raise ConfigError(
                f"{override}: a sweep is a grid, such as --multirun algorithm.lr=1e-3,3e-4; what searches a space is "
                "python -m hsw.tune"
            )
        if len(names) == 1:
            prepared.append(f"logger={names[0]}")
        elif names:
            prepared += ["~logger", *(f"+logger@logger.{name}={name}" for name in names if name)]
        elif _is_free(key) or (key == "callbacks" and value.startswith("{")):
            prepared.append(f"++{override}")
        else:
            prepared.append(override)
    return prepared


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
        packages += _WORD.findall(said.partition("=")[2])
        rest.remove(said)
    overrides = [index for index, argument in enumerate(rest) if not argument.startswith("-") and "=" in argument]
    place = overrides[0] if overrides else len(rest)  # Hydra 1.3 wants overrides in a row
    return [*rest[:place], f"allow=[{','.join(dict.fromkeys(packages))}]", *rest[place:]]


def of_rank(arguments: Sequence[str]) -> list[str]:
    """Prepared arguments for one of the ranks that torchrun has started: those after the first make no folder.

    Raises:
        ConfigError: If it is a sweep.
    """
    rank, size = of_environment()
    sweep = {"-m", "--multirun", "hydra.mode=MULTIRUN"} & {*arguments}
    if size > 1 and sweep:
        raise ConfigError(
            f"torchrun starts the learners of one run, and this is a sweep; without torchrun, learners={size} starts "
            "those of each job"
        )
    if rank == 0:
        return list(arguments)
    own = ("hydra.run.dir=", "hydra/job_logging=", "hydra.job_logging")
    kept = [argument for argument in arguments if not argument.startswith(own)]
    return [*kept, "hydra.run.dir=.", "hydra/job_logging=none"]


def _is_free(key: str) -> bool:
    """Whether a key is, or is in, a mapping that takes any key: env.kwargs, env.eval_kwargs.kind."""
    return bool(re.match(r"\w+\.(\w+\.)*\w*kwargs(\.|$)", key))


def key_of(override: str) -> str:
    """What an override sets: algorithm.lr of ++algorithm.lr=1, and logger@logger.wandb as it stands."""
    return override.lstrip("+~").partition("=")[0]
