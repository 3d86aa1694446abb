"""Telling callbacks what happens."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hsw.agent.protocols import require
from hsw.ranks import current
from hsw.run.callback import Callback

log = logging.getLogger("hsw")


class Watchers:
    """An agent's callbacks, told in the order in which they were given.

    Args:
        agent: What they are told of.
        callbacks: By name, or in a row; then their classes name them.
    """

    def __init__(self, agent: Any, callbacks: Sequence[Callback] | Mapping[str, Callback]) -> None:
        self._agent = agent
        self.by_name: dict[str, Callback] = dict(callbacks) if isinstance(callbacks, Mapping) else {}
        for callback in () if isinstance(callbacks, Mapping) else callbacks:
            name = kind = type(callback).__name__
            number = sum(other.partition("-")[0] == kind for other in self.by_name)
            self.by_name[f"{name}-{number + 1}" if number else name] = callback
        for name, callback in self.by_name.items():
            require(callback, Callback, f"callback {name}")
        self.any = bool(self.by_name)  # on rank 0
        if not current().is_first:
            self.by_name = {name: one for name, one in self.by_name.items() if getattr(one, "every_rank", False)}
        self._started = False

    def tell(self, event: str, *arguments: Any) -> None:
        """Call a method of every callback."""
        for callback in self.by_name.values():
            getattr(callback, event)(self._agent, *arguments)

    def start(self) -> None:
        """The run begins."""
        self._started = True
        self.tell("on_run_start")

    def end(self, error: BaseException | None) -> None:
        """The run is over, if it began. What ended it is not hidden by an error that a callback makes of it."""
        if not self._started:
            return
        self._started = False
        try:
            self.tell("on_run_end", error)
        except Exception:
            if error is None:
                raise
            log.exception("a callback failed as the run ended")

    def state_dict(self) -> dict[str, Any]:
        return {name: callback.state_dict() for name, callback in self.by_name.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, callback in self.by_name.items():
            if name in state:  # it may have been added since
                callback.load_state_dict(state[name])
