"""What is public, by room: every class and function that a config or a program may name."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import Any

import hsw
from hsw.config.check import HANDED_OVER
from hsw.config.targets import inside
from reference_pages import conf
from reference_pages.docstrings import first_sentence

# Modules whose public classes and functions are public, beside what packages export and conf/ names.
_WHOLE = {
    "hsw": ["hsw.api", "hsw.trained", "hsw.eval"],
    "agent": ["hsw.agent.callbacks", "hsw.agent.protocols", "hsw.run.callback"],
    "algorithm": ["hsw.algorithm.intrinsic"],
    "network": ["hsw.network.augmentation"],
    "logger": ["hsw.run.logger"],
    "ground": ["hsw.spaces", "hsw.returns", "hsw.schedule", "hsw.bounds", "hsw.errors"],
}
_ABOUT = {
    "hsw": "What a program takes: a config, an agent, what a run has learnt.",
    "agent": "The training loops, what they need of their parts, and what is told of a run's events.",
    "algorithm": "Losses with their optimisers, and rewards for what is new.",
    "network": "Encoders, action distributions, policies and augmentations.",
    "storage": "Memory between acting and learning.",
    "env": "Environments behind one adapter.",
    "logger": "Copies of metrics.jsonl.",
    "sweep": "What Hydra calls around a sweep.",
    "exporting": "A run's policy in forms that need neither hsw nor, as ONNX, torch.",
    "ground": "Spaces, returns, schedules, ranges and errors: pure, stateless or tiny.",
}


def pages() -> dict[str, str]:
    """A page for each room."""
    return {f"api/{room}.md": _page(room, found) for room, found in rooms().items()}


@functools.cache
def rooms() -> dict[str, dict[str, Any]]:
    """Every public class and function by its shortest dotted name, by room."""
    found: dict[str, dict[str, Any]] = {room: {} for room in _ABOUT}
    for name, thing in _exported() + _modules() + _targets():
        room = _room_of(name)
        if not any(known is thing for things in found.values() for known in things.values()):
            found[room][name] = thing
    for room, things in found.items():
        for base in [base for thing in things.values() for base in _bases(thing)]:
            if not any(known is base for known in things.values()):
                found[room] = {**found[room], f"{base.__module__}.{base.__qualname__}": base}
    return found


def _exported() -> list[tuple[str, Any]]:
    """What packages have in __all__."""
    packages = [hsw.__name__] + [f"hsw.{part.name}" for part in pkgutil.iter_modules(hsw.__path__) if part.ispkg]
    modules = [importlib.import_module(name) for name in packages]
    return [(f"{module.__name__}.{name}", getattr(module, name)) for module in modules for name in _all_of(module)]


def _all_of(module: Any) -> list[str]:
    return list(getattr(module, "__all__", ()))


def _modules() -> list[tuple[str, Any]]:
    found = []
    for name in (name for names in _WHOLE.values() for name in names):
        module = importlib.import_module(name)
        for own, thing in vars(module).items():
            if _is_public(own, thing) and thing.__module__ == name and own not in ("main", "cli"):
                found.append((f"{name}.{own}", thing))
    return found


def _is_public(name: str, thing: Any) -> bool:
    return not name.startswith("_") and (inspect.isclass(thing) or inspect.isfunction(thing))


def _targets() -> list[tuple[str, Any]]:
    """What conf/ names of hsw's own."""
    from reference_pages.keys import target_of

    nodes = [node for group in conf.groups() for choice in conf.choices(group).values() for _, node in choice.targets]
    names = [node["_target_"] for node in nodes] + [
        str(value) for key, value in conf.flat(conf.root()) if _is_target(key)
    ]
    return [(name, target_of(name)) for name in dict.fromkeys(names)]


def _is_target(key: str) -> bool:
    return key.endswith("_target_")


def _room_of(name: str) -> str:
    for room, modules in _WHOLE.items():
        if inside(name, [module for module in modules if module != "hsw"]):
            return room
    part = name.split(".")[1]
    special = {"run": "logger", "hsw_sweep": "sweep"}
    return special.get(part, part if part in _ABOUT else "hsw")


def _bases(thing: Any) -> list[type]:
    """Public classes of hsw's own that a class derives from."""
    line = inspect.getmro(thing)[1:] if inspect.isclass(thing) else ()
    return [base for base in line if inside(base.__module__, ["hsw"]) and not base.__name__.startswith("_")]


def _page(room: str, things: dict[str, Any]) -> str:
    lines = [f"# {_title(room)}", "", _ABOUT[room], "", "| name | what it is |", "| --- | --- |"]
    ordered = sorted(things, key=lambda name: (not inspect.isclass(things[name]), name.rpartition(".")[2].lower()))
    for name in ordered:
        about = first_sentence(things[name].__doc__).replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
        lines.append(f"| {{py:obj}}`~{name}` | {about} |")
    handed = HANDED_OVER.get(room)
    if handed:
        names = ", ".join(f"`{name}`" for name in sorted(handed))
        lines += ["", f"The running program hands over {names}: no config says them."]
    lines += ["", "```{eval-rst}"]
    for name in ordered:
        directive = "autoclass" if inspect.isclass(things[name]) else "autofunction"
        lines += [f".. {directive}:: {name}"]
        lines += ["   :members:", "   :show-inheritance:", ""] if directive == "autoclass" else [""]
    return "\n".join(lines) + "```\n"


def _title(room: str) -> str:
    return {"hsw": "hsw, from Python", "logger": "hsw.run: loggers", "ground": "hsw: the ground"}.get(
        room, f"hsw.{room}"
    )
