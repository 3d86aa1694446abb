"""Figures between one logged row and the next."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from hsw.template import StateError


class Means:
    """The mean of each figure over those updates that had it."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, figures: dict[str, float]) -> None:
        """Count the figures of an update."""
        for name, value in figures.items():
            self._sums[name] += value
            self._counts[name] += 1

    def pop(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sums = dict(state["sums"])
        # A checkpoint of hsw 0.1 has the number of updates among the sums, and divided all of them by it.
        updates = sums.pop("updates", 0) if "counts" not in state else 0
        self._sums.update(sums)
        counts = state.get("counts", dict.fromkeys(sums, int(updates)))
        if set(counts) != set(sums) or 0 in counts.values():
            raise StateError("the saved state/counts do not count the figures of state/sums")
        self._counts.update(counts)


class Clock:
    """How the time of an iteration is shared by its phases."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._mark = 0.0
        self.begin()

    def begin(self) -> None:
        """An iteration begins."""
        self._seconds.clear()
        self._start = self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """What passed since the last call was of this phase."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now

    def mark(self, phase: str | None = None) -> None:
        """What passed since the last mark was of this part of the laps around it; None begins one."""
        now = time.perf_counter()
        if phase is not None:
            self._seconds[phase] += now - self._mark
        self._mark = now

    def skip(self) -> None:
        """What passed since the last call was of no phase."""
        self._last = time.perf_counter()

    def turn(self) -> None:
        """An iteration of collecting and learning is over, of which a logged row may have many."""
        return

    def close(self) -> None:
        """Training ends."""
        return

    def metrics(self, steps: int) -> dict[str, float]:
        """The iteration's steps per second, and each phase's share of its time."""
        total = time.perf_counter() - self._start
        shares = {f"speed/{phase}_share": seconds / total for phase, seconds in self._seconds.items()}
        # A resumed run may begin with the update of a rollout that was full already.
        return {**({"speed/steps_per_second": steps / total} if steps else {}), **shares}
