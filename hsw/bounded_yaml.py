"""YAML from anybody: bounded in size, depth and what its aliases would expand to, before anything is made of it."""

from __future__ import annotations

from typing import Any

import yaml

MAX_BYTES = 2**22
MAX_DEPTH = 100
MAX_NODES = 50_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_bounds(text: bytes, interpolations: bool = True) -> None:
    """Refuse a document that a few lines could blow up, and one that is not a single document of plain values.

    Args:
        text: The document.
        interpolations: Whether values may hold ${...}.

    Raises:
        ValueError: Saying what is wrong, as in "is not YAML".
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    sizes: dict[str, int] = {}  # of what an anchor stands for, in nodes
    heights: dict[str, int] = {}
    open_nodes: list[list[Any]] = []  # anchor, nodes before it, height of what is in it
    nodes = 0

    def close(anchor: str | None, before: int, height: int) -> None:
        if anchor is not None:
            sizes[anchor], heights[anchor] = nodes - before, height
        if open_nodes:
            open_nodes[-1][2] = max(open_nodes[-1][2], height + 1)

    try:
        for event in yaml.parse(text, _LOADER):
            before, height = nodes, 0
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise ValueError("has an alias that stands for what it is in")
                nodes, height = nodes + sizes[event.anchor], heights[event.anchor]
                close(None, before, height)
            elif isinstance(event, yaml.ScalarEvent):
                nodes += 1
                _check_scalar(event, interpolations)
                close(event.anchor, before, 0)
            elif isinstance(event, yaml.CollectionStartEvent):
                nodes += 1
                open_nodes.append([event.anchor, before, 0])
            elif isinstance(event, yaml.CollectionEndEvent):
                close(*open_nodes.pop())
            if nodes > MAX_NODES:
                raise ValueError(f"holds more than {MAX_NODES} values")
            if len(open_nodes) + height > MAX_DEPTH:
                raise ValueError(f"is nested deeper than {MAX_DEPTH}")
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError("is not YAML") from error


def parse(text: bytes) -> Any:
    """The plain value of a document.

    Raises:
        ValueError: If it is not YAML, or passes the bounds.
    """
    check_bounds(text)
    try:
        return yaml.load(text, _LOADER)
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError("is not YAML") from error


def _check_scalar(event: yaml.ScalarEvent, interpolations: bool) -> None:
    value = event.value
    if value == "<<" and not event.style:  # merging multiplies what aliases stand for, and hsw never writes it
        raise ValueError("merges mappings (<<)")
    if len(value) > 4000 and value.lstrip("+-").isdigit():
        raise ValueError("has a number that is too long")
    if not interpolations and "${" in value:
        raise ValueError("has an interpolation (${...}), and what a run stored has none")
