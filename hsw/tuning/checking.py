"""What is refused before anything is written: a space with a value that no run takes, budgets that cannot grow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from hsw.config.choices import options, places_named, search_also
from hsw.config.files import conf_folder, refuse_null_choices
from hsw.config.hydra_versions import VERSION_BASE
from hsw.config.plain import settle
from hsw.config.plugins import register_plugins
from hsw.config.resolved import allowed_by, check
from hsw.config.targets import resolve_target, walk_targets
from hsw.errors import ConfigError
from hsw.schedule import Constant, Schedule
from hsw.signatures import signature_of
from hsw.sweep.gate import check_composed
from hsw.tuning.settings import Settings
from hsw.tuning.space import Parameter, overrides_of, value_of

_BUDGET = "num_train_steps"


@contextmanager
def composing(overrides: Sequence[str]) -> Iterator[None]:
    """Within the body, command lines can be composed along the search path that these overrides name."""
    refuse_null_choices(overrides)
    register_plugins()
    search_also(places_named(overrides))
    with initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
        yield


def composed(overrides: Sequence[str]) -> DictConfig:
    """What a command line composes, Hydra's node and all."""
    return compose("config", overrides=list(overrides), return_hydra_config=True)


def own(config: DictConfig) -> DictConfig:
    """A composed config without Hydra's node."""
    kept = config.copy()
    with open_dict(kept):
        kept.allow = allowed_by(config)
        del kept["hydra"]
    return kept


def check_space(settings: Settings, overrides: Sequence[str], space: Sequence[Parameter]) -> list[str]:
    """Check every choice and both ends of every interval as a run's config is checked.

    Returns:
        With halving, what of it would be another at a larger budget: its rungs begin anew.

    Raises:
        ConfigError: For the first value that no run takes, a key that there is not, or a budget that cannot grow.
    """
    first = {parameter.name: parameter.extremes()[0] for parameter in space}
    base = composed([*overrides, *overrides_of(space, first)])
    check_composed(base)
    _check_evaluations(settings, base)
    plain, following = own(base), list[str]()
    for config, said in [(plain, ""), *_variants(plain, overrides, space, first)]:
        if said:
            try:
                check(config)
            except ConfigError as error:
                raise ConfigError(f"{error}; the space has {said}" if said not in str(error) else str(error)) from error
        if settings.halves:
            following += _follows(settings, config, said)
    return list(dict.fromkeys(following))


def _variants(
    plain: DictConfig, overrides: Sequence[str], space: Sequence[Parameter], first: dict[str, Any]
) -> Iterator[tuple[DictConfig, str]]:
    """The config with one value of the space after another, and what the value is."""
    for parameter in space:
        for value in parameter.extremes()[1:]:
            said = parameter.override(value).lstrip("+")
            if options(parameter.name.partition("@")[0]):  # a choice of a group
                config = composed([*overrides, *overrides_of(space, {**first, parameter.name: value})])
                check_composed(config)
                yield own(config), said
            else:
                config = plain.copy()
                with open_dict(config):
                    given = value_of(value) if parameter.kind == "choice" else value
                    OmegaConf.update(config, parameter.name, given, merge=False)
                yield config, said


def _check_evaluations(settings: Settings, config: DictConfig) -> None:
    interval, budget = config.eval_interval, int(config.num_train_steps)
    few = settings.last > 1 and (interval is None or settings.last > budget // int(interval) + 1)
    if few:
        raise ConfigError(
            f"tune.last={settings.last} takes the mean of so many evaluations, and eval_interval={interval or 'null'} "
            f"makes fewer in {budget} steps; set eval_interval={max(1, budget // settings.last)}"
        )
    if settings.second == "steps" and interval is None:
        raise ConfigError("tune.second=steps needs evaluations on the way; set eval_interval=<steps>")


# -- what depends on the budget ----------------------------------------------------------------------------------------


def _follows(settings: Settings, config: DictConfig, said: str) -> list[str]:
    found = follows_budget(config)
    if found and not settings.rescale:
        where = f" (with {said})" if said else ""
        raise ConfigError(
            f"tune.pruner=halving goes on with a run at a larger budget, and {', '.join(found)} would have been another"
            f"{where}: make schedules constant, or let each rung begin anew, its schedules over its own budget: "
            "tune.rescale=true"
        )
    return found


def follows_budget(config: DictConfig) -> list[str]:
    """The keys whose effect at a step depends on the budget: a run to half of it is no half of a run.

    Those are schedules, which are known by their annotation; what a target's `follows_budget(options)` names; and
    values that were made of num_train_steps.

    Args:
        config: Composed and checked.
    """
    found = [key for key, text in _leaves(OmegaConf.to_container(config)) if re.search(rf"\$\{{{_BUDGET}\}}", text)]
    plain: Any = OmegaConf.to_container(settle(config))
    for path, node in walk_targets(plain):
        target = resolve_target(node["_target_"], plain["allow"])
        for name, hint in signature_of(target).hints.items():
            if hint == Schedule and name in node and not _is_constant(node[name]):
                found.append(f"{path}.{name}={_short(node[name])}")
        told = getattr(target, "follows_budget", None)
        found += [f"{path}.{name}={_short(node.get(name))}" for name in (told(node) if callable(told) else ())]
    return found


def _is_constant(value: Any) -> bool:
    target = value.get("_target_") if isinstance(value, dict) else None
    return value == "constant" or target == f"{Constant.__module__}.{Constant.__qualname__}"


def _short(value: Any) -> str:
    return str(value["_target_"]).rpartition(".")[2] if isinstance(value, dict) else str(value)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if pairs is None:
        yield path, str(node)
        return
    for key, value in pairs:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))
