from __future__ import annotations

import io
import logging
from typing import Any

import pytest

from hsw.run.progress import Progress, format_scores, format_seconds
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


@pytest.fixture
def clock(monkeypatch: Any) -> list[float]:
    """Seconds that time.monotonic tells; a test sets them."""
    now = [100.0]
    monkeypatch.setattr("hsw.run.progress.time.monotonic", lambda: now[0])
    return now


def terminal(monkeypatch: Any) -> Any:
    """stderr as a terminal of 100 columns; returns what it was sent. Not a fixture: pytest sets stderr after those."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    return screen


SCORES = {"mean": 123.44, "std": 5.04, "returns": [1.0]}


def test_an_evaluation_is_shown_while_it_plays_and_its_outcome_stays_in_sight(monkeypatch: Any, clock: Any) -> None:
    screen = terminal(monkeypatch)
    progress = Progress(1000)
    progress.update(0)
    clock[0] += 1
    progress.update(1000, 2.0)
    progress.evaluating(0, 20)
    assert "evaluating 0/20" in screen.getvalue()
    clock[0] += 60
    progress.evaluating(3, 20)
    shown = screen.getvalue()
    assert "evaluating 3/20" in shown
    assert "0s left" not in shown  # what is left is the evaluation, however long it takes
    progress.evaluated(1000, SCORES)
    progress.update(1000, force=True)
    progress.close()
    assert "eval return 123.4 ± 5.0 at step 1,000" in screen.getvalue().rpartition("100 %")[2]


def test_the_speed_and_the_time_left_know_that_evaluations_are_no_training(capsys: Any, clock: Any) -> None:
    progress = Progress(2000, interval=0.0)
    progress.update(0)
    clock[0] += 10
    progress.evaluating(0, 5)
    clock[0] += 10
    progress.evaluated(0, SCORES)
    progress.update(1000)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "100/s" in line  # 1,000 steps in the 10 seconds of training
    assert "20s left" in line  # of which half will be an evaluation again


def test_the_speed_is_that_of_the_last_half_minute(capsys: Any, clock: Any) -> None:
    progress = Progress(100_000, interval=0.0)
    progress.update(0)
    clock[0] += 1
    progress.update(10_000)  # a warm-up that learns nothing
    for step in range(10_100, 16_000, 100):
        clock[0] += 1
        progress.update(step)
    assert "· 100/s ·" in capsys.readouterr().err.splitlines()[-1]


def test_starting_up_is_no_measure_of_the_speed(capsys: Any, clock: Any) -> None:
    progress = Progress(10_000, interval=0.0)
    progress.update(0)
    for step in range(100, 400, 100):  # actors take ten seconds to start
        clock[0] += 10 if step == 100 else 1
        progress.update(step)
    assert "100/s" in capsys.readouterr().err.splitlines()[-1]


def test_goal_environments_have_their_success_first() -> None:
    assert format_scores({**SCORES, "success": 0.85}) == "success 0.85 · return 123.4 ± 5.0"
    assert format_scores(SCORES) == "return 123.4 ± 5.0"


def test_plain_lines_become_rarer_as_the_run_goes_on(capsys: Any, clock: Any) -> None:
    progress = Progress(10**9)
    for second in range(8 * 3600):
        progress.update(second)
        clock[0] += 1
    assert 20 < len(capsys.readouterr().err.splitlines()) < 120


def test_what_is_logged_meanwhile_stands_above_the_live_area(monkeypatch: Any) -> None:
    screen = terminal(monkeypatch)
    handler = logging.StreamHandler(screen)
    logging.getLogger().addHandler(handler)
    progress = Progress(1000)
    try:
        progress.update(0)
        logging.getLogger("hsw").warning("an actor was started again")
        progress.close()
        assert handler.stream is screen
    finally:
        logging.getLogger().removeHandler(handler)
    lines = screen.getvalue().split("\n")
    assert any("started again" in line and "steps" not in line for line in lines)
