"""What a callable takes, also where a subclass hands on what it does not name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

_OPEN = inspect.Parameter.VAR_KEYWORD
_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, _OPEN, inspect.Parameter.POSITIONAL_ONLY)


class Signature(NamedTuple):
    """What may be given by name.

    Attributes:
        hints: The annotation of each parameter, Any where there is none.
        required: Those without a default.
        open: Whether any other name is taken too: the last in line has **kwargs.
    """

    hints: dict[str, Any]
    required: set[str]
    open: bool


def signature_of(target: Any) -> Signature:
    """What a class, function or factory takes by name.

    A class whose __init__ has **kwargs also takes what the next one along its MRO takes, and so on: class P2(PPO) with
    __init__(self, policy, foo=1, **kwargs) takes foo and all that PPO does. A factory takes its class's arguments, and
    those that it names itself.
    """
    if inspect.isclass(target):
        return _along(target, "__init__")
    if inspect.ismethod(target) and inspect.isclass(target.__self__):
        own, owner = _merged([target]), _along(target.__self__, "__init__")
        return Signature(owner.hints | own.hints, owner.required | own.required, owner.open)
    return _merged([target])


def method_parameters(owner: type, name: str) -> list[str]:
    """The names that a method takes beside self, a base class's before those that a derived one adds."""
    return list(_along(owner, name).hints)


def _along(owner: type, name: str) -> Signature:
    chain: list[Callable[..., Any]] = []
    for cls in owner.__mro__:
        if cls is object or cls.__module__ == "torch.nn.modules.module":  # they refuse what is left
            break
        if name in vars(cls):
            function = vars(cls)[name]
            chain.append(function.__func__ if isinstance(function, classmethod | staticmethod) else function)
            if not _is_open(chain[-1]):
                break
    return _merged(chain or [owner])


def _is_open(function: Callable[..., Any]) -> bool:
    return any(parameter.kind is _OPEN for parameter in _own(function).values())


def _own(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (ValueError, TypeError):  # written in C, and silent
        return {}


def _merged(chain: list[Callable[..., Any]]) -> Signature:
    """Of functions, the most derived first, whose **kwargs are the next one's arguments."""
    hints: dict[str, Any] = {}
    required: set[str] = set()
    for function in reversed(chain):  # the most derived has the last word
        try:
            annotations = typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError, AttributeError):  # names that only a type checker imports
            annotations = {}
        for name, parameter in _own(function).items():
            if parameter.kind in _UNNAMED or name == "self":
                continue
            hints[name] = annotations.get(name, Any)
            (required.discard if parameter.default is not parameter.empty else required.add)(name)
    return Signature(hints, required, _is_open(chain[-1]))
