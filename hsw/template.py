"""What a saved state must look like: held against what was loaded, before anything is made of it.

A template is nested as the state is. Its dicts have exactly the state's keys, its lists exactly its length; its leaves
are the classes of this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hsw.append_log import AppendLog
from hsw.errors import ConfigError, CorruptError
from hsw.spaces import SpaceSpec

LARGEST = 2**62


class StateError(CorruptError, ConfigError):
    """A state is not of the object that is to take it up: a damaged file, or one of another configuration."""


@dataclass(frozen=True)
class Axis:
    """A size that may vary, from 0 to `most`; axes of one name have one size in a state, but for what they add."""

    name: str
    most: int = LARGEST
    plus: int = 0


@dataclass(frozen=True)
class Array:
    """A tensor. Its numbers are finite, and within bounds that are given; with `sizes`, they are choices, of so many
    each along the last axis."""

    shape: tuple[int | Axis, ...]
    dtype: torch.dtype
    low: float = -math.inf
    high: float = math.inf
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    low: int = 0
    high: int = LARGEST


@dataclass(frozen=True)
class Number:
    """A number, whole or not; without `finite`, also none."""

    low: float = -math.inf
    finite: bool = True


@dataclass(frozen=True)
class Exactly:
    """A value that is told again, such as a layout or a name."""

    value: Any


@dataclass(frozen=True)
class Flag:
    """True or false."""


@dataclass(frozen=True)
class Text:
    """Words."""


@dataclass(frozen=True)
class Maybe:
    """Null, or what a template says."""

    inner: Any


@dataclass(frozen=True)
class Each:
    """A list of any length up to `most` of what a template says."""

    inner: Any
    most: int = LARGEST


@dataclass(frozen=True)
class Named:
    """A dict of at most `most` texts, whatever they are, to what a template says."""

    inner: Any
    most: int = 1000


@dataclass(frozen=True)
class Fields:
    """A dict with some keys that may be missing; with `others`, any further ones."""

    required: dict[str, Any]
    optional: dict[str, Any] = field(default_factory=dict)
    others: bool = False


@dataclass(frozen=True)
class AllOrNone:
    """An empty dict, or one with all keys."""

    inner: dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """An AppendLog with so many columns, of at most so many rows each."""

    columns: int
    most: int = LARGEST


@dataclass(frozen=True)
class Anything:
    """What only whoever takes it up can judge."""


def hold(template: Any, state: Any, path: str, missing: bool = False) -> None:
    """Hold a state against its template.

    Args:
        template: Of it.
        state: As it was loaded.
        path: Of the state, for the message.
        missing: Let keys be missing: the state is older than some of them.

    Raises:
        StateError: For the first thing that is not as it must be.
    """
    _hold(template, state, path, missing, {})


def template_of(state: Any, vary: bool = False) -> Any:
    """The template of a state like this one: keys, shapes, dtypes and kinds of values.

    Args:
        state: Of an object that has just been made.
        vary: Tensors may have another first axis, and lists another length: what they hold grows.
    """
    if isinstance(state, Tensor):
        shape: tuple[int | Axis, ...] = tuple(state.shape)
        return Array((Axis(str(id(state))), *shape[1:]) if vary and shape else shape, state.dtype)
    if isinstance(state, Mapping) and vary and not state:
        return Anything()
    if isinstance(state, Mapping):
        return {key: template_of(value, vary) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return Anything() if vary else [template_of(value) for value in state]
    if isinstance(state, AppendLog):
        return Rows(len(state.begin))
    if isinstance(state, bool):
        return Flag()
    if isinstance(state, str):
        return Exactly(state) if not vary else Anything()
    return Number() if isinstance(state, int | float) and math.isfinite(state) else Anything()


def space_template(spec: SpaceSpec, *leading: int | Axis) -> Any:
    """The template of elements of a space, [*leading, *shape], or of a dict of them."""
    if spec.type == "Dict":
        return {key: space_template(part, *leading) for key, part in spec.spaces.items()}
    return Array((*leading, *spec.shape), spec.torch_dtype, sizes=spec.nvec or (2,) * (spec.type == "MultiBinary"))


def _hold(template: Any, state: Any, path: str, missing: bool, sizes: dict[str, int]) -> None:
    if isinstance(template, Anything):
        return
    if isinstance(template, Maybe):
        if state is not None:
            _hold(template.inner, state, path, missing, sizes)
    elif isinstance(template, AllOrNone):
        if state != {}:
            _hold(template.inner, state, path, missing, sizes)
    elif isinstance(template, Fields | dict):
        _hold_keys(template if isinstance(template, Fields) else Fields(template), state, path, missing, sizes)
    elif isinstance(template, list):
        if not isinstance(state, list) or len(state) != len(template):
            raise _wrong(path, state, f"a list of {len(template)}")
        for index, (inner, value) in enumerate(zip(template, state, strict=True)):
            _hold(inner, value, f"{path}/{index}", missing, sizes)
    elif isinstance(template, Each):
        if not isinstance(state, list) or len(state) > template.most:
            raise _wrong(path, state, "a list" if template.most == LARGEST else f"a list of at most {template.most}")
        for index, value in enumerate(state):
            _hold(template.inner, value, f"{path}/{index}", missing, sizes)
    elif isinstance(template, Named):
        if not isinstance(state, dict) or len(state) > template.most or not all(isinstance(key, str) for key in state):
            raise _wrong(path, state, "a mapping of texts")
        for key, value in state.items():
            _hold(template.inner, value, f"{path}/{key}", missing, sizes)
    elif isinstance(template, Array):
        _hold_array(template, state, path, sizes)
    elif isinstance(template, Rows):
        _hold_rows(template, state, path)
    elif not _fits(template, state):
        raise _wrong(path, state, _expected(template))


def _hold_keys(template: Fields, state: Any, path: str, missing: bool, sizes: dict[str, int]) -> None:
    if not isinstance(state, dict):
        raise _wrong(path, state, "a mapping")
    known = {**template.required, **template.optional}
    unknown = [key for key in state if key not in known and not template.others]
    lacking = [key for key in template.required if key not in state and not missing]
    if unknown or lacking:
        what = f"has no {lacking[0]}" if lacking else f"has {str(unknown[0])[:100]}, which nothing takes up"
        raise StateError(f"the saved {path} {what}")
    for key, value in state.items():
        _hold(known.get(key, Anything()), value, f"{path}/{key}", missing, sizes)


def _hold_array(template: Array, state: Any, path: str, sizes: dict[str, int]) -> None:
    if not isinstance(state, Tensor) or state.dtype != template.dtype or state.ndim != len(template.shape):
        raise _wrong(path, state, _expected(template))
    for size, wanted in zip(state.shape, template.shape, strict=True):
        if isinstance(wanted, Axis):
            known = sizes.setdefault(wanted.name, size - wanted.plus)
            fits = 0 <= known <= wanted.most and size == known + wanted.plus
        else:
            fits = size == wanted
        if not fits:
            raise _wrong(path, state, _expected(template))
    if state.is_floating_point() and not bool(torch.isfinite(state).all()):
        raise StateError(f"the saved {path} has a NaN or infinite number")
    bounded = template.low > -math.inf or template.high < math.inf
    if bounded and state.numel() and (float(state.min()) < template.low or float(state.max()) > template.high):
        raise StateError(f"the saved {path} has a number outside [{template.low:g}, {template.high:g}]")
    if template.sizes and state.numel() and not bool(((state >= 0) & (state < torch.tensor(template.sizes))).all()):
        raise StateError(f"the saved {path} has a choice outside of its space")


def _hold_rows(template: Rows, state: Any, path: str) -> None:
    if not isinstance(state, AppendLog) or len(state.begin) != template.columns:
        raise _wrong(path, state, f"rows of {template.columns} columns")
    if any(end - begin > template.most for begin, end in zip(state.begin, state.end, strict=True)):
        raise StateError(f"the saved {path} has more than {template.most} rows of a column")


def _fits(template: Any, state: Any) -> bool:
    if isinstance(template, Flag | Text):
        return isinstance(state, bool if isinstance(template, Flag) else str)
    if isinstance(template, Exactly):
        return type(state) is type(template.value) and bool(state == template.value)
    if isinstance(state, bool) or not isinstance(state, int | float):
        return False
    if isinstance(template, Whole):
        return isinstance(state, int) and template.low <= state <= template.high
    assert isinstance(template, Number)
    return not template.finite or (abs(state) < 1e308 and state >= template.low)  # NaN compares as false


def _wrong(path: str, state: Any, expected: str) -> StateError:
    return StateError(f"the saved {path} is {_shown(state)} and must be {expected}")


def _expected(template: Any) -> str:
    if isinstance(template, Array):
        sizes = [size if isinstance(size, int) else "any number" for size in template.shape]
        return f"{str(template.dtype).removeprefix('torch.')} [{', '.join(map(str, sizes))}]"
    if isinstance(template, Whole):
        return f"a whole number from {template.low}" + (f" to {template.high}" if template.high < LARGEST else "")
    if isinstance(template, Number):
        return "a finite number" + (f" from {template.low:g}" if template.low > -math.inf else "")
    if isinstance(template, Flag | Text):
        return "true or false" if isinstance(template, Flag) else "text"
    return str(template.value)


def _shown(state: Any) -> str:
    if isinstance(state, Tensor):
        return f"{str(state.dtype).removeprefix('torch.')} {list(state.shape)}"
    if isinstance(state, dict | list | AppendLog):
        return "a mapping" if isinstance(state, dict) else "a list" if isinstance(state, list) else "rows"
    return str(state)[:100]
