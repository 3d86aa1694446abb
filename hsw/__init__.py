"""hsw: a Hydra-configured experiment toolkit for reinforcement learning.

From Python: `hsw.compose([...])` makes a config as a command line does, `hsw.make(config, folder)` an agent of it, and
`hsw.load(folder)` takes up what a run has learnt.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsw.api import compose, load, make

__version__ = "0.2.0.dev0"
__all__ = ["compose", "load", "make"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # Hydra is loaded when they are first asked for, and torch when they need it
        return getattr(importlib.import_module("hsw.api"), name)
    raise AttributeError(f"module 'hsw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
