"""Rows of named fields packed into records, so that one gather brings all of a transition."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hsw.errors import ConfigError
from hsw.memory import available_memory
from hsw.spaces import SpaceSpec, tree_map
from hsw.template import StateError

_AT_ONCE = 2**12  # records: they stay in the cache while their fields are looked at
Field = tuple[str, str, tuple[int, ...]]  # name, dtype, shape


def space_fields(name: str, spec: SpaceSpec) -> Iterator[Field]:
    """Name, dtype and shape of each part of an element; the parts of a Dict are called name/key."""
    if spec.type == "Dict":
        for key, part in spec.spaces.items():
            yield from space_fields(f"{name}/{key}", part)
    else:
        yield name, spec.dtype, spec.shape


def replay_fields(spaces: Mapping[str, SpaceSpec]) -> list[Field]:
    """What a replay's record holds: elements of these spaces, and what else belongs to a transition."""
    return [
        *(field for name, spec in spaces.items() for field in space_fields(name, spec)),
        ("rewards", "float32", ()),
        ("offsets", "int32", ()),
        ("terminateds", "bool", ()),
        ("truncateds", "bool", ()),
    ]


def choices_of(spaces: Mapping[str, SpaceSpec]) -> dict[str, tuple[int, ...]]:
    """The fields of elements that are choices, and of how many each, along the last axis."""
    found: dict[str, tuple[int, ...]] = {}
    for name, spec in spaces.items():
        if spec.nvec or spec.type == "MultiBinary":
            found[name] = spec.nvec or (2,)
        found |= choices_of({f"{name}/{key}": part for key, part in spec.spaces.items()})
    return found


def check_records(records: np.ndarray, choices: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse records with numbers that no vector of environments lets pass.

    Args:
        records: [K]; what they keep of info is not looked at, because nobody does when it is stored.
        choices: As choices_of tells them.

    Raises:
        StateError: Naming the field.
    """
    for first in range(0, len(records), _AT_ONCE):
        rows = records[first : first + _AT_ONCE]
        for name in rows.dtype.names or ():
            part, kind = rows[name], rows.dtype[name].base.kind
            if name.startswith("info/"):
                continue
            if kind == "f":  # the sum tells of all at once, short of an overflow
                with np.errstate(over="ignore", invalid="ignore"):
                    good = math.isfinite(np.add.reduce(part, axis=None)) or bool(np.isfinite(part).all())
            elif kind == "b":
                good = bool((part.view(np.uint8) <= 1).all())
            else:
                good = name not in choices or bool(((part >= 0) & (part < choices[name])).all())
            if not good:
                raise StateError(f"the saved replay's rows have {name} that no environment gives")


def record_dtype(fields: list[Field]) -> np.dtype:
    """A record whose fields, and itself, lie on boundaries that torch can view; the largest items come first."""
    ordered = sorted(fields, key=lambda field: -np.dtype(field[1]).itemsize)
    packed = np.dtype([(name, dtype, shape) for name, dtype, shape in ordered], align=True)
    size = -(-packed.itemsize // 8) * 8
    assert packed.names is not None
    assert packed.fields is not None
    offsets = [packed.fields[name][1] for name in packed.names]
    formats = [packed.fields[name][0] for name in packed.names]
    return np.dtype({"names": list(packed.names), "formats": formats, "offsets": offsets, "itemsize": size})


def describe(dtype: np.dtype) -> list[list[Any]]:
    """A record's fields as plain values, by which two layouts are compared."""
    assert dtype.names is not None
    assert dtype.fields is not None
    return [[name, dtype[name].base.name, list(dtype[name].shape), int(dtype.fields[name][1])] for name in dtype.names]


def part_of(records: np.ndarray, name: str, spec: SpaceSpec) -> Any:
    """The views of an element's parts in records: an array, or a dict of them."""
    if spec.type == "Dict":
        return {key: part_of(records, f"{name}/{key}", part) for key, part in spec.spaces.items()}
    return records[name]


def to_fields(records: np.ndarray, spaces: dict[str, SpaceSpec]) -> dict[str, Any]:
    """Views of all fields by name, those of an element of a space together."""
    fields = {name: part_of(records, name, spec) for name, spec in spaces.items()}
    return {**fields, **{name: records[name] for name in records.dtype.names or () if name.split("/")[0] not in spaces}}


def from_fields(fields: dict[str, Any], spaces: dict[str, SpaceSpec], dtype: np.dtype) -> np.ndarray:
    """Records of what to_fields returned."""
    records = np.zeros(len(fields["rewards"]), dtype)
    tree_map(lambda view, part: np.copyto(view, part), to_fields(records, spaces), fields)
    return records


def check_memory(size: int, num_envs: int, record_bytes: int, memory: str) -> None:
    """Refuse a replay that cannot fit: for each environment size // num_envs records and one more.

    Args:
        size: storage.storage_size.
        num_envs: N.
        record_bytes: Of a record.
        memory: "disk" if the records are there; beside them are a few bytes for each, such as its episode's length.

    Raises:
        ConfigError: With the estimate and the largest size that fits.
    """
    free = max(available_memory(), 0)
    row_bytes = 8 if memory == "disk" else record_bytes + 8
    needed = num_envs * (size // num_envs + 1) * row_bytes
    if needed > free:
        largest = max(free // (num_envs * row_bytes) - 1, 0) * num_envs
        unless = "" if memory == "disk" else " unless storage.memory=disk"
        raise ConfigError(
            f"storage.storage_size={size} needs {needed / 2**30:.1f} GiB, {row_bytes} bytes a row{unless}, and "
            f"{free / 2**30:.1f} GiB are free; the largest that fits is storage.storage_size={largest}"
        )
