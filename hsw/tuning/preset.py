"""best.yaml: what the best trial had otherwise than the general values, as a preset."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from hsw.analysis.groups import CANNOT_MATTER
from hsw.config.choices import options
from hsw.errors import ResourceError
from hsw.output import one_line
from hsw.run.folder import write_whole
from hsw.tuning.checking import composed, own
from hsw.tuning.results import Results, interval
from hsw.tuning.trials import Plan

_MISSING = object()


def write_best(plan: Plan, results: Results) -> str:
    """Write best.yaml, and once more where --config-dir finds it.

    Returns:
        What trains with it.

    Raises:
        ResourceError: If the disk does not take it.
    """
    trial, row = results.best()
    folder = results.journal.folder
    overrides = plan.job(dict(trial.params), plan.seeds[0], plan.budget)
    choices, values = preset_of(overrides)
    command = shlex.join(["python", "-m", "hsw.train", *choices, "--config-dir", str(folder), "preset=best"])
    found = row.estimate if row else None
    fresh = f"{found.value:.6g} {interval(found)} on {len(row.scores)} fresh seeds" if row and found else ""
    worth = f"{trial.values[0]:.6g} when tuned, {fresh or 'not confirmed'}"
    head = [
        "# @package _global_",
        f"# Trial {trial.number} of {results.limit} in {folder.name}: {worth}.",
        f"# {one_line(command)}",
    ]
    text = "\n".join([*head, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)])
    for path in (folder / "best.yaml", folder / "preset" / "best.yaml"):
        _make(path.parent)
        write_whole(path, text.encode())
    return f"{folder / 'best.yaml'} has its values; they are used by\n{command}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make {folder}: {error.strerror or error}") from error


def preset_of(overrides: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """A command line as choices of groups and the values that differ from what they bring.

    Args:
        overrides: As they compose.

    Returns:
        The choices, which no preset can make, with what finds and trusts them; and nested values.
    """
    choices = [one for one in overrides if _is_choice(one) or one.startswith(("hydra.searchpath=", "allow="))]
    general = dict(_leaves(own(composed([*choices, "~preset"]))))
    values: dict[str, Any] = {}
    for path, value in _leaves(own(composed(overrides))):
        if general.get(path, _MISSING) == value or CANNOT_MATTER.match(path) or path == "tag":
            continue
        node = values
        *parents, name = re.split(r"\.", path)
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return choices, values


def _is_choice(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return bool(options(key.partition("@")[0])) and key != "preset"


def _leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Values by dotted name, unresolved; a list is one."""
    yield from _walk(OmegaConf.to_container(config, resolve=False), "")


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _walk(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
