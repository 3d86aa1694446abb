"""conf/ as it stands: the choices of each group, what they set, and the comments beside that."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hsw.config.place import conf_folder
from hsw.config.targets import walk_targets

ROOT = Path(conf_folder())
GLOBAL = "# @package _global_"


@dataclass(frozen=True)
class Choice:
    """One YAML of a group.

    Attributes:
        group, name: conf/<group>/<name>.yaml.
        own: What it sets itself.
        values: The same, with what its defaults of the same group set.
        bases: Those defaults.
        brings: The choices of other groups that it brings: group and name.
        about: The comment at its head.
    """

    group: str
    name: str
    own: dict[str, Any]
    values: dict[str, Any]
    bases: tuple[str, ...]
    brings: tuple[tuple[str, str], ...]
    about: str

    @property
    def targets(self) -> list[tuple[str, dict[str, Any]]]:
        """The nodes that name a target of a group's own: the choice itself, or what it has by name."""
        found = [(path, node) for path, node in walk_targets(self.values) if path.count(".") == 0]
        return [(path, node) for path, node in found if path == "" or found[0][0] != ""]

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, by dotted key."""
        return dict(flat(self.values))


def groups() -> list[str]:
    """Every group, hydra/launcher too."""
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.yaml") if path.parent != ROOT}
    return sorted(folders | {"experiments"})


@functools.cache
def choices(group: str) -> dict[str, Choice]:
    """A group's choices by name."""
    return {path.stem: read(group, path.stem) for path in sorted((ROOT / group).glob("*.yaml"))}


@functools.cache
def read(group: str, name: str) -> Choice:
    """One choice."""
    text = (ROOT / group / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    bases: list[str] = []
    brings: list[tuple[str, str]] = []
    for entry in content.pop("defaults", []):
        if isinstance(entry, str):
            bases += [entry] * (entry != "_self_")
        else:
            brings += [(key.split()[-1].strip("/").partition("@")[0], str(value)) for key, value in entry.items()]
    values: dict[str, Any] = {}
    for base in bases:
        values = merged(values, read(group, base).values)
    head = [line for line in text.splitlines() if line != GLOBAL]
    stop = next((index for index, line in enumerate(head) if not line.startswith("#")), len(head))
    about = " ".join(line.lstrip("# ") for line in head[:stop])
    return Choice(group, name, content, merged(values, content), tuple(bases), tuple(brings), about)


def merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, of which the second wins."""
    both = {key: merged(low[key], high[key]) for key in low.keys() & high.keys() if isinstance(low[key], dict)}
    return {**low, **high, **{key: value for key, value in both.items() if isinstance(high[key], dict)}}


def flat(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings, by dotted key. An empty mapping is a leaf."""
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            yield from flat(value, name)
        else:
            yield name, value


def parts_of(preset: str) -> dict[str, str]:
    """The choices that a preset is for: its agent's and environment's, and what the agent brings."""
    agents, envs = choices("agent"), choices("env")
    agent = max((name for name in agents if preset.startswith(f"{name}_")), key=len)
    rest = preset.removeprefix(f"{agent}_")
    env = max((name for name in envs if rest == name or rest.startswith(f"{name}_")), key=len)
    return {"agent": agent, "env": env, **dict(agents[agent].brings)}


def root() -> dict[str, Any]:
    """conf/config.yaml without its defaults."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    content.pop("defaults")
    return content


def root_defaults() -> dict[str, str]:
    """The choice of each group that a bare command line takes."""
    content = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    pairs = [pair for entry in content["defaults"] if isinstance(entry, dict) for pair in entry.items()]
    return {key.removeprefix("optional "): value for key, value in pairs if isinstance(value, str)}


def comments(text: str) -> dict[str, str]:
    """The comment of each key of a YAML, dotted: above it or behind it; a key without one has its parent's."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        key = re.match(r"( *)([\w.]+):(?:\s|$)[^#]*(?:# (.*))?$", line)
        if line.strip().startswith("#"):
            above.append(line.strip("# "))
        elif key:
            path = [(indent, name) for indent, name in path if indent < len(key[1])]
            parent = ".".join(name for _, name in path)
            path.append((len(key[1]), key[2]))
            found[".".join(name for _, name in path)] = key[3] or " ".join(above) or found.get(parent, "")
            above = []
        else:
            above = []
    return found
