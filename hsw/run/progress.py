"""What a person sees while a run goes on: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """Steps, speed, recent return and time left.

    Args:
        total: Steps of the run.
        interval: Seconds between plain lines.
        quiet: Show nothing.
    """

    def __init__(self, total: int, interval: float = 10.0, quiet: bool = False) -> None:
        self.total, self.interval, self.quiet = total, interval, quiet
        self._live: Any = None
        self._last = 0.0
        self._begin: tuple[float, int] | None = None

    def update(self, step: int, episode_return: float | None = None, force: bool = False) -> None:
        """Show where the run is; cheap when there is nothing to redraw."""
        now = time.monotonic()
        if self._begin is None:
            self._begin, self._last = (now, step), now
            return
        terminal = sys.stderr.isatty()
        if self.quiet or (not force and now - self._last < (0.2 if terminal else self.interval)):
            return
        self._last = now
        seconds, steps = now - self._begin[0], step - self._begin[1]
        speed = steps / seconds if seconds > 0 else 0.0
        left = (self.total - step) / speed if speed > 0 else float("inf")
        shown = "-" if episode_return is None else f"{episode_return:.1f}"
        line = f"{step:,}/{self.total:,} steps · {speed:,.0f}/s · return {shown} · {format_seconds(max(left, 0))} left"
        if terminal:
            self._show_live(min(step / self.total, 1.0), line)
        else:
            print(line, file=sys.stderr, flush=True)

    def evaluating(self, done: int, total: int) -> None:
        """An evaluation has played so many of its episodes."""

    def evaluated(self, step: int, scores: dict[str, Any]) -> None:
        """An evaluation is done."""

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show_live(self, fraction: float, line: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        if self._live is None:
            columns = (BarColumn(30), TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False))
            self._live = Bar(*columns, console=Console(stderr=True), auto_refresh=False)
            self._live.start()
            self._live.add_task("", total=1.0)
        self._live.update(self._live.task_ids[0], completed=fraction, description=line, refresh=True)


def format_seconds(seconds: float) -> str:
    """90 -> "1m30s"."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
