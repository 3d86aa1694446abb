from __future__ import annotations

from typing import Any

import pytest

from hsw.run.progress import Progress, format_seconds
from hsw.run.services import Every


def test_every_is_due_on_crossing_an_interval_not_on_hitting_it() -> None:
    every = Every(100)
    due = []
    for step in range(0, 1000, 48):  # never a multiple of 100, but for 0 and 1200
        if every.due(step):
            due.append(step)
            every.done(step)
    assert due == [144, 240, 336, 432, 528, 624, 720, 816, 912]


@pytest.mark.parametrize(("last", "step", "due"), [(0, 99, False), (0, 100, True), (100, 199, False), (199, 200, True)])
def test_every_stays_due_until_it_is_done(last: int, step: int, due: bool) -> None:
    every = Every(100)
    every.done(last)
    assert every.due(step) is due
    assert every.due(step) is due


def test_every_counts_one_stride_over_many_intervals_once() -> None:
    every = Every(10)
    assert every.due(75)
    every.done(75)
    assert not every.due(79)
    assert every.due(80)


def test_every_none_is_never_due() -> None:
    assert not Every(None).due(10**9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (90, "1m30s"), (3600, "1h00m"), (90000, "25h00m"), (float("inf"), "?")],
)
def test_seconds_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_progress_prints_plain_lines_off_a_terminal(capsys: Any) -> None:
    progress = Progress(1000, interval=0.0)
    progress.update(0)
    progress.update(500, 12.34)
    progress.close()
    line = capsys.readouterr().err
    assert line.startswith("500/1,000 steps")
    assert "return 12.3" in line


def test_progress_is_silent_when_quiet_or_too_soon(capsys: Any) -> None:
    for progress in (Progress(1000, interval=0.0, quiet=True), Progress(1000, interval=60.0)):
        progress.update(0)
        progress.update(500)
        progress.close()
    assert capsys.readouterr().err == ""


def test_progress_shows_a_live_line_on_a_terminal(monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(1000)
    progress.update(0)
    progress.update(500, 1.0, force=True)
    assert progress._live is not None
    progress.close()
    assert progress._live is None
