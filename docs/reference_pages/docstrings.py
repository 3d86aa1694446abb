"""What docstrings say of parameters, and what annotations allow, in words."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hsw.bounds import Range

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^    ([\w.]+(?:, [\w.]+)*): (.*)$")
_ELSEWHERE = re.compile(r"(?:As in|See) (?:[\w.]*\.)?([A-Za-z]\w+)(?:[.;,] ?(.*))?")
_WORDS = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text", type(None): "`null`"}


def first_sentence(text: str | None) -> str:
    """Of a docstring, on one line."""
    paragraph = " ".join((text or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s+(?=[A-Z\[])", paragraph)[0] if ". " in paragraph else paragraph


def section(text: str | None, name: str) -> dict[str, str]:
    """A section of a Google docstring: what each name means. Names with one meaning have it each."""
    found: dict[str, str] = {}
    inside, names = False, list[str]()
    for line in inspect.cleandoc(text or "").splitlines():
        if heading := _SECTION.match(line):
            inside, names = heading[1] == name, []
        elif inside and (entry := _ENTRY.match(line)):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif inside and line.startswith("        "):
            found |= {one: f"{found[one]} {line.strip()}" for one in names}
    return found


def meanings(target: Any) -> dict[str, str]:
    """What each parameter of a class, function or factory means.

    A class's bases are asked, too, and so is whatever "As in Parts." or "See make_env." names.
    """
    owner = target.__self__ if inspect.ismethod(target) else target
    line = [cls for cls in inspect.getmro(owner) if cls is not object] if inspect.isclass(owner) else [owner]
    found: dict[str, str] = {}
    for one in reversed(line):
        own = section(vars(one).get("__doc__") if inspect.isclass(one) else one.__doc__, "Args")
        if inspect.isclass(one) and "__init__" in vars(one):
            own |= section(one.__init__.__doc__, "Args")
        found |= {name: _followed(name, text, one) for name, text in own.items()}
    return found | (section(target.__doc__, "Args") if owner is not target else {})


def _followed(name: str, text: str, owner: Any) -> str:
    """A meaning, and instead of a mere pointer what it points to."""
    pointer = _ELSEWHERE.fullmatch(text)
    if pointer is None:
        return text
    places = [vars(inspect.getmodule(owner)), *(_public())]
    named = next((place[pointer[1]] for place in places if pointer[1] in place), None)
    there = meanings(named).get(name) if named not in (None, owner) else None
    return text if there is None else f"{there} {(pointer[2] or '').capitalize()}".strip()


@functools.cache
def _public() -> list[Mapping[str, Any]]:
    from hsw import agent, env, network
    from hsw.agent import parts

    return [vars(module) for module in (agent, parts, env, network)]


def refusals(target: Any) -> list[str]:
    """When a target, or its check of a whole config, raises a ConfigError."""
    docs = [target.__doc__, getattr(getattr(target, "check", None), "__doc__", None)]
    return [said for doc in docs for error, said in section(doc, "Raises").items() if error == "ConfigError"]


def kind(hint: Any) -> str:
    """What an annotation allows: `in [0, 1]`, one of some words, a list of something."""
    bounds = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), None)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = dict.fromkeys(_one(option, bounds) for option in sorted(options, key=lambda one: one is type(None)))
    return " or ".join(words)


def _one(hint: Any, bounds: Range | None) -> str:
    origin = get_origin(hint) or hint
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if origin in (int, float) and bounds is not None:
        return f"{_WORDS[origin]} {bounds}"
    if origin in _WORDS:
        return _WORDS[origin]
    if origin in (Any, Ellipsis, object) or isinstance(origin, typing.TypeVar):
        return "anything"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if origin is Callable or origin is typing.get_origin(Callable[..., Any]):
        return "an object with `_target_`"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        items = get_args(hint)
        return f"list ({kind(items[0]) if bounds is None else _one(items[0], bounds)})" if items else "list"
    return "an object with `_target_`"
