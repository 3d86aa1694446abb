"""What a person sees while a run goes on: a live area on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

_WINDOW = 30.0  # seconds over which the speed is measured
_SOON, _STARTING = 0.5, 10.0  # seconds from which on a speed is one: of training, of what may also be starting up
_REDRAW = 0.2  # seconds
_RAREST = 600.0  # seconds between plain lines of a run of hours


class Progress:
    """Steps, speed, time left and returns; while the run evaluates, how far the evaluation is.

    Args:
        total: Steps of the run.
        interval: Seconds between plain lines, in the first minutes; later a tenth of the time that has passed.
        quiet: Show nothing.
    """

    def __init__(self, total: int, interval: float = 10.0, quiet: bool = False) -> None:
        self.total, self.interval, self.quiet = total, interval, quiet
        self._live: Any = None
        self._redirected: list[tuple[Any, Any]] = []
        self._begin: float | None = None
        self._last = 0.0  # when something was shown
        self._step = self._first = 0
        self._return: float | None = None
        self._evaluation: str | None = None  # the last one's outcome
        self._playing: str | None = None  # "evaluating 3/20"
        self._playing_since = 0.0
        self._played = 0.0  # seconds of evaluations, which are no training
        self._marks: deque[tuple[float, int]] = deque()  # seconds of training, step

    def update(self, step: int, episode_return: float | None = None, force: bool = False) -> None:
        """Show where the training is; cheap when there is nothing to redraw.

        Args:
            step: Reached.
            episode_return: The recent mean of the training's episodes.
            force: It is the last: show it even if the line before it is young.
        """
        now = time.monotonic()
        self._end_playing(now)
        self._step, self._return = step, self._return if episode_return is None else episode_return
        if self._begin is None:
            self._begin, self._last, self._first = now, now, step
            self._mark(now)
            self._draw_live()  # so that a terminal shows at once that something goes on
        elif force or self._is_due(now):
            self._mark(now)
            self._show(now, ended=force)

    def evaluating(self, done: int, num_episodes: int) -> None:
        """Show how far an evaluation is."""
        now = time.monotonic()
        if not self._playing:
            self._playing_since = now
        first, self._playing = not self._playing, f"evaluating {done}/{num_episodes}"
        if (sys.stderr.isatty() and first) or self._is_due(now):
            self._show(now)

    def evaluated(self, step: int, scores: Mapping[str, Any]) -> None:
        """Keep an evaluation's outcome in sight.

        Args:
            step: At which it was.
            scores: mean, std, and success where the environment tells.
        """
        self._end_playing(time.monotonic())
        self._evaluation = f"eval {format_scores(scores)} at step {step:,}"
        if self.quiet:
            return
        if sys.stderr.isatty():
            self._draw_live()
        else:
            print(self._evaluation, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was, with the last state on it."""
        if self._live is not None:
            self._live.update(self._area(ended=True), refresh=True)
            self._live.stop()
            self._live = None
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected.clear()

    def _end_playing(self, now: float) -> None:
        if self._playing:
            self._played += now - self._playing_since
            self._playing = None

    def _is_due(self, now: float) -> bool:
        if self.quiet or self._begin is None:
            return False
        plain = max(self.interval, min(0.1 * (now - self._begin), _RAREST))
        return now - self._last >= (_REDRAW if sys.stderr.isatty() else plain)

    def _mark(self, now: float) -> None:
        """Remember when a step was reached; the speed is that of the last half minute of training."""
        seconds = now - self._played
        self._marks.append((seconds, self._step))
        # The first steps take as long as it takes to start.
        while len(self._marks) > 2 and (self._marks[0][1] == self._first or seconds - self._marks[1][0] > _WINDOW):
            self._marks.popleft()

    def _show(self, now: float, ended: bool = False) -> None:
        if self.quiet:
            return
        self._last = now
        if sys.stderr.isatty():
            self._draw_live()
        else:
            returns = [] if self._return is None else [f"train return {self._return:,.1f}"]
            print(" · ".join([*self._figures(ended), *returns]), file=sys.stderr, flush=True)

    def _figures(self, ended: bool = False) -> list[str]:
        (begin, first), (end, last) = self._marks[0], self._marks[-1]
        known = end - begin >= (_SOON if first > self._first else _STARTING)
        speed = (last - first) / (end - begin) if known else 0.0
        figures = [f"{self._step:,}/{self.total:,} steps"] + ([f"{speed:,.0f}/s"] if speed else [])
        if ended:
            return [*figures, f"in {format_seconds(time.monotonic() - (self._begin or 0.0))}"]
        if self._playing:
            return [*figures, self._playing]
        if self._step >= self.total:  # what is left is to evaluate and to save, however long that takes
            return [*figures, "ending"]
        if not speed:
            return [*figures, "starting"]
        # Evaluations are to come as well, in the share of the time that they took so far.
        share = 1 + self._played / max(end - (self._begin or 0.0), 1e-9)
        return [*figures, f"{format_seconds((self.total - self._step) / speed * share)} left"]

    def _draw_live(self) -> None:
        if self.quiet or self._begin is None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            # rich takes what is printed meanwhile and writes it above the area: also what logging's handlers write,
            # which hold the stream that was there before.
            streams = (sys.stdout, sys.stderr)
            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                    self._redirected.append((handler, handler.stream))
                    handler.setStream(sys.stdout if handler.stream is streams[0] else sys.stderr)
        self._live.update(self._area(), refresh=True)

    def _area(self, ended: bool = False) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        share = min(self._step / self.total, 1.0) if self.total > 0 else 1.0
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=share, width=24, complete_style="cyan", finished_style="green")
        table.add_row(
            bar, Text(f"{100 * share:3.0f} %  {' · '.join(self._figures(ended))}", no_wrap=True, overflow="ellipsis")
        )
        returns = [] if self._return is None else [f"train return {self._return:,.1f}"]
        below = " · ".join(returns + ([self._evaluation] if self._evaluation else []))
        return Group(table, Text(f"{'':24} {below}", style="dim", no_wrap=True, overflow="ellipsis"))


def format_scores(scores: Mapping[str, Any]) -> str:
    """An evaluation's outcome for people, success first: "success 0.85 · return -4.2 ± 1.3"."""
    success = [f"success {scores['success']:.2f}"] if scores.get("success") is not None else []
    return " · ".join([*success, f"return {scores['mean']:,.1f} ± {scores['std']:,.1f}"])


def format_seconds(seconds: float) -> str:
    """90 -> "1m30s"."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
