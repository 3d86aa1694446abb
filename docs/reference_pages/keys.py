"""Every key of the config: what it may be, what it is by default, what it means, and which presets change it."""

from __future__ import annotations

import functools
import importlib
import json
import re
import typing
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from hsw.config.check import GROUPS
from hsw.config.settings import CHANGEABLE, Settings
from hsw.signatures import signature_of
from reference_pages import conf
from reference_pages.docstrings import kind, meanings, refusals, section

_HEAD = ("key", "values", "default", "meaning", "presets that change it")
_OTHER = "Values for other places, under one name each."
_ABOUT = {
    "hydra/launcher": "Where the jobs of a sweep run; Hydra's own launchers are choices too.",
    "preset": "The tuned values that there are for an agent on an environment, and what they replace.",
    "experiments": "The studies: what is swept, and what all of their jobs have in common.",
    "space": "What `python -m hsw.tune` searches for each agent, unless the command line says what varies.",
    "budget": "How long: values for other places.",
    "hindsight": "Which goals are put in hindsight: values for other places.",
    "pair": "An agent and an environment under one name, to sweep over.",
}


def pages() -> dict[str, str]:
    """The root's page, hydra's, and one for each group."""
    written = {"keys/root.md": _root(), "keys/hydra.md": _hydra()}
    for group in conf.groups():
        has_targets = any(choice.targets for choice in conf.choices(group).values())
        written[f"keys/{group.replace('/', '-')}.md"] = _with_targets(group) if has_targets else _values(group)
    return written


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown. A column that all rows leave empty is left out."""
    filled = [list(row) for row in rows]
    kept = [index for index in range(len(head)) if index == 0 or any(row[index] for row in filled)]
    lines = [[head[index] for index in kept], ["---"] * len(kept), *([row[index] for index in kept] for row in filled)]
    return "\n".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |" for line in lines) + "\n"


def shown(value: Any) -> str:
    """A value as YAML has it, as code; of several lines the first."""
    text = value if isinstance(value, str) else json.dumps(value)
    first, _, more = text.partition("\n")
    text = f"{first} ..." if more else text
    if isinstance(value, float):
        text = re.sub(r"^(-?\d+)e", r"\1.0e", text)  # 1e-05 is a word in YAML
    return "`" + text.replace("|", "\\|") + "`" if text else "`''`"


def prose(text: str) -> str:
    """A docstring's words, in which YAML's null and true stand for Python's."""
    for word, said in {"None": "`null`", "True": "`true`", "False": "`false`"}.items():
        text = " ".join(said + part[len(word) :] if part.rstrip(".,;:)") == word else part for part in text.split(" "))
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


@functools.cache
def changes() -> dict[str, list[tuple[str, Any]]]:
    """By key: the presets whose files set it, and to what."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for name, preset in conf.choices("preset").items():
        for key, value in conf.flat(preset.own):
            found.setdefault(key, []).append((name, value))
    return found


def changed(key: str, group: str = "", choices: Collection[str] = ()) -> str:
    """The presets that change a key where one of these choices of its group is taken."""
    told = changes().get(key, [])
    fitting = [one for one in told if not choices or conf.parts_of(one[0]).get(group, "") in choices]
    return ", ".join(f"[{name}](preset.md#{name}) {shown(value)}" for name, value in fitting)


def target_of(name: str) -> Any:
    """What a _target_ of conf/ names."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def _root() -> str:
    said, defaults = section(Settings.__doc__, "Attributes"), conf.root()
    rows = []
    for key, hint in typing.get_type_hints(Settings, include_extras=True).items():
        allowed = f"a choice of [{key}]({key}.md)" if hint in GROUPS else kind(hint)
        default = conf.root_defaults().get(key, defaults.get(key, ""))
        resumed = " A resumed run may change it." if key in CHANGEABLE else ""
        rows.append((f"`{key}`", allowed, shown(default), prose(said.get(key, "")) + resumed, changed(key)))
    return f"# Keys of the root\n\nWhat every run has, whatever it trains.\n\n{table(_HEAD, rows)}"


def _hydra() -> str:
    said = conf.comments((conf.ROOT / "config.yaml").read_text(encoding="utf-8"))
    keys = [(f"hydra.{key}", value) for key, value in conf.flat(conf.root()["hydra"])]
    rows = [(f"`{key}`", "", shown(value), prose(said.get(key, "")), "") for key, value in keys]
    return (
        "# Keys of Hydra that hsw sets\n\n"
        "Hydra's own have its defaults; `python -m hsw.train --cfg hydra` shows all.\n\n" + table(_HEAD, rows)
    )


def _with_targets(group: str) -> str:
    """A group whose choices name targets: a table for each target, and the choices that it has."""
    by_target: dict[str, list[tuple[conf.Choice, str, dict[str, Any]]]] = {}
    for choice in conf.choices(group).values():
        for path, node in choice.targets:
            by_target.setdefault(node["_target_"], []).append((choice, path, node))
    about = section(Settings.__doc__, "Attributes").get(group) or _ABOUT.get(group, _OTHER)
    parts = [f"# Keys of {group}", about]
    for name, found in by_target.items():
        parts.append(_target(group, name, sorted(found, key=lambda one: _rank(group, one[0]))))
    return "\n\n".join(part for part in parts if part) + "\n"


def _rank(group: str, choice: conf.Choice) -> tuple[bool, bool, str]:
    """The choice whose values stand as defaults comes first: what others are based on, or what is taken by default."""
    return bool(choice.bases), conf.root_defaults().get(group) != choice.name, choice.name


def _target(group: str, name: str, found: list[tuple[conf.Choice, str, dict[str, Any]]]) -> str:
    target = target_of(name)
    hints, said = signature_of(target).hints, meanings(target)
    first, path, node = found[0]
    place = ".".join(part for part in (group.replace("/", "."), path) if part)
    names, rows = [choice.name for choice, _, _ in found], []
    for key, default in node.items():
        if not key.startswith("_"):
            presets = changed(f"{place}.{key}", group, names)
            meaning = prose(said.get(key, ""))
            rows.append((f"`{place}.{key}`", kind(hints.get(key, Any)), shown(default), meaning, presets))
    text = f"## {name.rpartition('.')[2]}\n\n`{group}={first.name}` takes {{py:obj}}`{name}`"
    text += f": {prose(first.about)}\n\n" if first.about else ".\n\n"
    text += table(_HEAD, rows) if rows else "It has no keys.\n"
    refused = [prose(said) for said in refusals(target)]
    text += "\nRefused: " + " ".join(refused) + "\n" if refused else ""
    if first.brings or len(found) > 1:
        others = [(choice, own, f"`{group}={choice.name}`") for choice, _, own in found]
        rows = [(name, prose(one.about), _brought(one), _unlike(node, own)) for one, own, name in others]
        text += "\n" + table(("choice", "what it is", "brings", "and sets"), rows)
    return text


def _brought(choice: conf.Choice) -> str:
    return ", ".join(f"`{group}={name}`" for group, name in choice.brings)


def _unlike(first: dict[str, Any], other: dict[str, Any]) -> str:
    low = dict(conf.flat(first))
    return ", ".join(f"`{key}` {shown(value)}" for key, value in conf.flat(other) if low.get(key, "???") != value)


def _values(group: str) -> str:
    """A group whose choices are values for other places."""
    parts = [f"# Choices of {group}", _ABOUT.get(group, _OTHER)]
    for name, choice in conf.choices(group).items():
        rows = [(f"`{key}`", shown(value), _general(choice, key)) for key, value in choice.settings.items()]
        parts.append(f"## {name}")
        brought = _brought(choice)
        parts += [prose(choice.about)] * bool(choice.about) + [f"It brings {brought}."] * bool(brought)
        parts.append(table(("key", "value", "instead of"), rows) if rows else "It sets nothing.")
    return "\n\n".join(parts) + "\n"


def _general(choice: conf.Choice, key: str) -> str:
    """What a key has where no preset is taken: the root's value, or the recipe's part's."""
    if choice.group != "preset":
        return ""
    if "." not in key:
        return shown(conf.root()[key])
    group, _, rest = key.partition(".")
    name = conf.parts_of(choice.name).get(group)
    return shown(conf.read(group, name).settings[rest]) if name else ""
