"""Whether an episode is a function of its seed and its actions, and what else it depends on."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from hsw.checking.findings import Finding
from hsw.checking.play import Episode, Played, Row, copied, first_difference, same

_SEED, _OTHER = 12345, 54321
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_CONTAINERS = (list, dict, set, np.ndarray, *_GENERATORS)
_PLAIN = (int, float, *_CONTAINERS)
Make = Callable[[], Any]


def reference(make: Make, actions: list[Any] | None, steps: int) -> Episode:
    """An episode of an environment that is the only one of its process."""
    played = Played(make)
    try:
        return played.play(_SEED, actions, steps)
    finally:
        played.close()


def check_seeds(make: Make, used: Played, alone: Episode, twin: Episode) -> list[Finding]:
    """Compare episodes of one seed: of fresh environments, of one that has played, of one beside another.

    Args:
        make: Makes a VectorEnv of one environment.
        used: Has played.
        alone, twin: Episodes of the same actions, each of a process of its own.
    """
    first, second, beside, third = fresh = [Played(make) for _ in range(4)]
    try:
        if found := list(_global(third, len(alone.actions))):
            return found
        if differs := first_difference(alone, twin):
            return [_unseeded(first, differs)]
        if differs := first_difference(alone, first.play(_SEED, alone.actions)):
            return [_shared(first, differs, "the process has had others before")]
        if found := _history(used, second, alone):
            return found
        return _together(first, beside, alone) or _variety(second, alone)
    finally:
        for played in fresh:
            played.close()


def _states() -> dict[str, Any]:
    return {
        "np.random": str(np.random.get_state()),
        "random": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
    }


def _global(played: Played, steps: int) -> Iterator[Finding]:
    """Random numbers of the whole process that a reset or a step draws or seeds."""
    for method in ("reset", "step"):
        if method == "step":
            played.reset(_SEED)
        before = _states()
        if method == "reset":
            played.reset(_SEED)
        else:
            for action in played.drawn_actions(min(steps, 50)):
                if any(played.step(action)[2:4]):
                    break
        for name, state in _states().items():
            if state != before[name]:
                whose = "the process's random numbers, which other environments and the algorithm share"
                told = f"{method} draws from or seeds {name}, {whose}"
                advice = "draw from self.np_random, after super().reset(seed=seed)"
                yield played.fault("global-randomness", told, advice, method)
                return


def _unseeded(played: Played, differs: str) -> Finding:
    own = _own_generators(played)
    whose = f" (it has {own[0]})" if own else ""
    told = f"two environments that are reset with the same seed and take the same actions differ in {differs}{whose}"
    advice = "call super().reset(seed=seed) and draw from self.np_random alone, in every method"
    return played.fault("ignored-seed", told, advice, "reset")


def _own_generators(played: Played) -> list[str]:
    base = played.layers[0]
    return [
        f"self.{name}" for name, value in vars(base).items() if isinstance(value, _GENERATORS) and name != "_np_random"
    ]


def _history(used: Played, fresh: Played, one: Episode) -> list[Finding]:
    """An environment that has played must begin as a fresh one does."""
    places: dict[str, Any] = {}
    used.play(_OTHER, steps=50)
    used.reset(_SEED)
    fresh.reset(_SEED)
    for layer, twin in zip(used.layers, fresh.layers, strict=True):
        places.update(_differing(layer, twin))
    again = used.play(_SEED, one.actions)
    differs = first_difference(one, again)
    if not differs:
        return []
    generators = [name for name, values in places.items() if isinstance(values[0], _GENERATORS)]
    if generators:
        told = f"an episode depends on those before it, in {differs}: {generators[0]} is not seeded by reset"
        advice = f"seed it in reset, or draw from self.np_random in its place: {generators[0]} = self.np_random"
        return [used.fault("ignored-seed", told, advice, "reset")]
    names = [
        f"{name} is {_short(values[0])}, and {_short(values[1])} in a fresh one" for name, values in places.items()
    ]
    what = f" ({'; '.join(names[:3])})" if names else ""
    told = f"after reset, an environment that has played differs from a fresh one in {differs}{what}"
    advice = "set everything that an episode changes in reset, not in __init__"
    ends_soon = "terminated" in differs or "truncated" in differs or "length" in differs
    code = "done-again-after-reset" if ends_soon else "left-over"
    return [used.fault(code, told, advice, "reset")]


def _differing(layer: Any, twin: Any) -> dict[str, tuple[Any, Any]]:
    """Attributes of two environments that differ, of kinds that can be compared."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in vars(layer).items():
        other = vars(twin).get(name)
        if isinstance(value, _GENERATORS):
            differs = name != "_np_random" and _generator_state(value) != _generator_state(other)
        elif isinstance(value, int | float | str | bool | np.ndarray | list | dict | set | tuple | np.generic):
            try:
                differs = not same(value, other)
            except Exception:  # somebody's objects in a list
                differs = False
        else:
            differs = False
        if differs and name not in ("reset", "step", "_elapsed_steps"):
            found[f"self.{name}"] = value, other
    return found


def _generator_state(generator: Any) -> str:
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    for name in ("get_state", "getstate"):
        if hasattr(generator, name):
            return str(getattr(generator, name)())
    return ""


def _together(one_env: Played, other: Played, one: Episode) -> list[Finding]:
    """Two environments stepped in turns must not notice each other."""
    other.reset(_OTHER)
    first, _ = one_env.reset(_SEED)
    turns = Episode(copied(first), one.actions)
    over = False
    for action in one.actions:
        over = over or any(map(bool, other.step(copied(action))[2:4]))
        turns.rows.append(Row.of(one_env.step(copied(action))))
    differs = first_difference(one, turns)
    return [_shared(one_env, differs, "another one is stepped beside it")] if differs else []


def _shared(played: Played, differs: str, when: str) -> Finding:
    names = list(_class_state(played))
    what = f": {', '.join(names[:3])} {'is' if len(names) == 1 else 'are'} shared by all" if names else ""
    told = f"an episode is another in {differs} where {when}{what}"
    advice = "keep what an episode changes in the instance: set self.<name> in __init__ or reset"
    return played.fault("shared-state", told, advice, "step")


def _class_state(played: Played) -> dict[str, Any]:
    """Plain values and containers of the environment's classes and module that code could change."""
    found: dict[str, Any] = {}
    skipped = ("metadata", "render_mode", "spec", "reward_range", "id")
    for cls in type(played.layers[0]).__mro__:
        if cls.__module__.startswith(("gymnasium", "builtins", "typing")):
            continue
        for name, value in vars(cls).items():
            if not name.startswith("__") and name not in skipped and isinstance(value, _PLAIN):
                found[f"{cls.__name__}.{name}"] = value
    module = type(played.layers[0]).__module__
    names = vars(sys.modules[module]) if module in sys.modules else {}
    for name, value in names.items():
        if isinstance(value, _CONTAINERS) and not name.startswith("__"):
            found[f"{module}.{name}"] = value
    return found


def _variety(played: Played, one: Episode) -> list[Finding]:
    """Whether seeds make any difference."""
    for seed in range(5):
        if first_difference(one, played.play(seed, one.actions)):
            return []
    told = "every seed gives the same episode, where the actions are the same: the environment is deterministic"
    advice = "if it was meant to be random, draw from self.np_random after super().reset(seed=seed)"
    return [played.fault("deterministic", told, advice, "reset", note=True)]


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
