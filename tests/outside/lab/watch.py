"""A callback and a logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hsw.run.callback import Callback
from hsw.run.logger import Logger


class StopAfter(Callback):
    """Ends a run after so many iterations, of all its sessions."""

    def __init__(self, iterations: int = 10) -> None:
        self.iterations, self.seen = iterations, 0

    def on_iteration_end(self, agent: Any, metrics: dict[str, float]) -> None:
        self.seen += 1
        if self.seen >= self.iterations:
            agent.request_stop(f"{self.seen} iterations are enough")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class Lines(Logger):
    """Each row of metrics as a line of text."""

    def __init__(self, name: str = "lines.txt") -> None:
        super().__init__()
        self.name = name

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        self._lines = (folder / self.name).open("a")

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        print(step, *sorted(metrics), file=self._lines, flush=True)

    def close(self, exit_code: int) -> None:
        self._lines.close()
