from __future__ import annotations

import json
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

from hsw.run.logger import LocalLogger, Logger, TensorBoardLogger, WandbLogger
from tests.runs import rows


def session(logger: Logger, folder: Path, steps: Any, state: Any = None) -> Any:
    """Log one row per step; returns the state after the last."""
    logger.start(folder, {"seed": 1}, state)
    for step in steps:
        logger.log(step, {"loss": step / 2})
    end = logger.state_dict()
    logger.finish(0)
    return end


def test_rows_are_json_lines_and_not_finite_figures_are_null(tmp_path: Path) -> None:
    logger = LocalLogger()
    logger.start(tmp_path, {}, None)
    logger.log(5, {"a": 1, "b": float("nan"), "c": float("-inf"), "d": 0.5})
    logger.finish(0)
    (row,) = rows(tmp_path)
    assert {key: row[key] for key in "abcd"} == {"a": 1, "b": None, "c": None, "d": 0.5}
    assert row["step"] == 5


def test_resume_takes_back_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    logger = LocalLogger()
    logger.start(tmp_path, {}, None)
    logger.log(1, {})
    state = json.loads(json.dumps(logger.state_dict()))
    logger.log(2, {})
    logger.finish(0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "ti')  # torn by a kill
    session(LocalLogger(), tmp_path, [2, 3], state)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    times = [row["time"] for row in rows(tmp_path)]
    assert times == sorted(times)


def test_a_copy_that_raises_is_reported_once_and_ends_nothing(tmp_path: Path) -> None:
    class Broken(Logger):
        def copy(self, step: int, metrics: dict[str, float]) -> None:
            raise ConnectionError("gone")

        def close(self, exit_code: int) -> None:
            raise AssertionError("it has ended")

    with pytest.warns(UserWarning, match=r"Broken stopped \(log: gone\)") as caught:
        session(Broken(), tmp_path, range(5))
    assert len(caught) == 1
    assert len(rows(tmp_path)) == 5


def test_tensorboard_has_every_row(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    session(TensorBoardLogger(), tmp_path, [1, 2, 3])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 1.5)]


class FakeWandb(types.ModuleType):
    """wandb's calls, recorded; `faults` raise or wait."""

    Settings = staticmethod(dict)

    def __init__(self, **faults: Any) -> None:
        super().__init__("wandb")
        self.faults, self.calls = faults, []

    def _do(self, name: str, /, **kwargs: Any) -> None:
        self.calls.append((name, kwargs))
        if name in self.faults:
            self.faults[name](kwargs)

    def init(self, **kwargs: Any) -> Any:
        self._do("init", **kwargs)
        run = types.SimpleNamespace(id=kwargs["id"], define_metric=lambda *args, **kwargs: None)
        run.log = lambda row: self._do("log", row=row)
        run.finish = lambda exit_code: self._do("finish", exit_code=exit_code)
        return run


def fault(error: Exception | None = None, seconds: float = 0, mode: str | None = None) -> Any:
    def happen(kwargs: Any) -> None:
        if mode is None or kwargs["mode"] == mode:
            time.sleep(seconds)
            if error:
                raise error

    return happen


def wandb_session(monkeypatch: Any, folder: Path, state: Any = None, options: Any = None, **faults: Any) -> Any:
    fake = FakeWandb(**faults)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    begin = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        end = session(WandbLogger(finish_timeout=0.2, **(options or {})), folder, [1, 2], state)
    assert time.monotonic() - begin < 2
    return fake.calls, end, [str(warning.message) for warning in caught]


def test_wandb_keeps_its_id_on_resume_and_carries_its_own_step(tmp_path: Path, monkeypatch: Any) -> None:
    calls, state, _ = wandb_session(monkeypatch, tmp_path)
    assert [name for name, _ in calls] == ["init", "log", "log", "finish"]
    assert calls[2][1]["row"] == {"loss": 1.0, "global_step": 2}
    again, end, _ = wandb_session(monkeypatch, tmp_path, state)
    assert again[0][1]["id"] == calls[0][1]["id"] == end["copy"]["id"]
    assert again[0][1]["resume"] == "allow"


@pytest.mark.parametrize("place", ["init", "log", "finish"])
def test_a_wandb_that_raises_never_ends_the_run(place: str, tmp_path: Path, monkeypatch: Any) -> None:
    _, _, told = wandb_session(monkeypatch, tmp_path, **{place: fault(RuntimeError("no\nserver"))})
    assert [message for message in told if "WandbLogger stopped" in message]
    assert len(rows(tmp_path)) == 2


def test_a_wandb_that_does_not_finish_is_left_behind(tmp_path: Path, monkeypatch: Any) -> None:
    _, _, told = wandb_session(monkeypatch, tmp_path, finish=fault(seconds=5))
    assert any("did not finish within 0.2 s" in message for message in told)


def test_without_a_network_wandb_goes_on_offline_under_another_id(tmp_path: Path, monkeypatch: Any) -> None:
    unreachable = fault(ConnectionError("no route\nmore"), mode="online")
    calls, end, told = wandb_session(monkeypatch, tmp_path, options={"mode": "online"}, init=unreachable)
    first, second = (kwargs for name, kwargs in calls if name == "init")
    assert (first["mode"], second["mode"]) == ("online", "offline")
    assert first["id"] != second["id"] == end["copy"]["id"]
    assert told == ["wandb is not reachable (no route); this run is logged offline"]
    assert [name for name, _ in calls].count("log") == 2


def test_the_id_outlives_a_session_in_which_wandb_does_not_start(tmp_path: Path, monkeypatch: Any) -> None:
    _, state, _ = wandb_session(monkeypatch, tmp_path)
    _, later, _ = wandb_session(monkeypatch, tmp_path, state, init=fault(RuntimeError("broken")))
    assert later["copy"] == state["copy"]


@pytest.mark.parametrize(("key", "mode"), [("", "offline"), ("x" * 40, "online")])
def test_auto_is_online_with_a_key_and_offline_without(key: str, mode: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    calls, _, _ = wandb_session(monkeypatch, tmp_path)
    assert calls[0][1]["mode"] == mode
