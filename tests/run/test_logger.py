from __future__ import annotations

import csv
import json
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hsw.build import build_loggers
from hsw.run.csv_logger import CsvLogger
from hsw.run.logger import LocalLogger, Logger, TensorBoardLogger, WandbLogger
from hsw.run.metrics import Metrics
from tests.runs import patience, rows


def session(logger: Any, folder: Path, steps: Any, state: Any = None) -> Any:
    """Log one row per step; returns the state after the last."""
    metrics = Metrics(logger)
    metrics.start(folder, {"seed": 1}, state)
    for step in steps:
        metrics.log(step, {"loss": step / 2})
    end = metrics.state_dict()
    metrics.finish(0)
    return end


def test_rows_are_json_lines_and_not_finite_figures_are_null(tmp_path: Path) -> None:
    logger = Metrics(LocalLogger())
    logger.start(tmp_path, {}, None)
    logger.log(5, {"a": 1, "b": float("nan"), "c": float("-inf"), "d": 0.5})
    logger.finish(0)
    (row,) = rows(tmp_path)
    assert {key: row[key] for key in "abcd"} == {"a": 1, "b": None, "c": None, "d": 0.5}
    assert row["step"] == 5


def test_resume_takes_back_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    logger = Metrics(LocalLogger())
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


def test_a_config_names_one_logger_or_several_by_name() -> None:
    one = {"_target_": "hsw.run.csv_logger.CsvLogger"}
    assert isinstance(build_loggers(OmegaConf.create(one)), CsvLogger)
    several = build_loggers(OmegaConf.create({"csv": one, "board": None, "mine": one}))
    assert isinstance(several, dict)
    assert [(name, type(logger)) for name, logger in several.items()] == [("csv", CsvLogger), ("mine", CsvLogger)]


class Keeper(Logger):
    """Remembers what it was handed; `broken` names what it cannot take."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.taken: list[Any] = []

    def _take(self, what: str, *values: Any) -> None:
        if what == self.broken:
            raise ImportError("there is no package for it")
        self.taken.append((what, *values))

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        self._take("open", state)

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        self._take("copy", step)

    def log_text(self, step: int, name: str, text: str) -> None:
        self._take("text", step, name, text)

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        self._take("histogram", step, name, values.tolist())

    def log_image(self, step: int, name: str, image: Any) -> None:
        self._take("image", step, name, image.shape)

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        self._take("video", step, name, frames.shape, fps)

    def copy_state(self) -> Any:
        return len(self.taken)


def log_media(metrics: Metrics, step: int = 3) -> None:
    metrics.log_text(step, "note", "a < b")
    metrics.log_histogram(step, "weights", torch.tensor([[0.0, 1.0], [1.0, float("nan")]], dtype=torch.bfloat16))
    metrics.log_image(step, "frame", np.zeros((8, 6, 3), np.uint8))
    frames = np.zeros((4, 8, 6, 3), np.uint8)
    frames[1::2] = 255
    metrics.log_video(step, "episode", frames, fps=10)


def test_one_copy_that_fails_stops_no_other(tmp_path: Path) -> None:
    good, bad = Keeper(), Keeper(broken="copy")
    with pytest.warns(UserWarning, match="Keeper stopped") as caught:
        session({"bad": bad, "good": good}, tmp_path, [1, 2, 3])
    assert len(caught) == 1
    assert good.taken == [("open", None), ("copy", 1), ("copy", 2), ("copy", 3)]
    assert bad.taken == [("open", None)]
    assert len(rows(tmp_path)) == 3


def test_each_copy_is_given_its_own_state_on_resume(tmp_path: Path) -> None:
    longer = Keeper()
    longer.taken += ["before"]
    state = json.loads(json.dumps(session({"a": Keeper(), "b": longer}, tmp_path, [1, 2])))
    again = {"b": Keeper(), "a": Keeper(), "new": Keeper()}
    session(again, tmp_path, [], state)
    assert {name: one.taken[0][1] for name, one in again.items()} == {"a": 3, "b": 4, "new": None}


@pytest.mark.parametrize("state", [lambda self: self.never_set, lambda self: {"a": object()}])
def test_a_logger_that_cannot_tell_its_state_does_not_spoil_the_checkpoint(state: Any, tmp_path: Path) -> None:
    broken = type("Broken", (Keeper,), {"copy_state": state})()
    with pytest.warns(UserWarning, match=r"Broken stopped \(state: "):
        end = session({"broken": broken, "good": Keeper()}, tmp_path, [1])
    assert end["copies"] == {"good": 2}


def test_a_session_without_a_logger_keeps_its_state_for_the_next(tmp_path: Path) -> None:
    state = session({"a": Keeper()}, tmp_path, [1])
    state = session({"csv": CsvLogger()}, tmp_path, [2], state)
    again = Keeper()
    session({"a": again}, tmp_path, [3], state)
    assert again.taken[0] == ("open", 2)


@pytest.mark.parametrize(("names", "heir"), [(["mine"], "mine"), (["csv", "wandb"], "wandb")])
def test_a_checkpoint_of_0_1_0_hands_its_copys_state_on(names: list[str], heir: str, tmp_path: Path) -> None:
    loggers = {name: Keeper() for name in names}
    session(loggers, tmp_path, [], {"size": 0, "elapsed": 5.0, "copy": {"id": "x"}})
    assert {name: one.taken[0][1] for name, one in loggers.items() if one.taken[0][1]} == {heir: {"id": "x"}}


def test_a_logger_alone_and_the_same_among_others_share_their_state(tmp_path: Path) -> None:
    keeper = type("WandbLogger", (Keeper,), {})
    state = session(keeper(), tmp_path, [1])
    among = {"csv": Keeper(), "wandb": keeper()}
    session(among, tmp_path, [2], state)
    assert among["wandb"].taken[0] == ("open", 2)


def test_texts_histograms_images_and_videos_go_to_those_that_take_them(tmp_path: Path) -> None:
    keeper = Keeper()
    metrics = Metrics({"local": LocalLogger(), "keeper": keeper})
    metrics.start(tmp_path, {}, None)
    log_media(metrics)
    metrics.finish(0)
    assert keeper.taken[1:] == [
        ("text", 3, "note", "a < b"),
        ("histogram", 3, "weights", [0.0, 1.0, 1.0]),  # what is not finite is in no distribution
        ("image", 3, "frame", (8, 6, 3)),
        ("video", 3, "episode", (4, 8, 6, 3), 10),
    ]


def test_a_kind_that_a_logger_cannot_take_is_told_once_and_its_rows_go_on(tmp_path: Path) -> None:
    keeper = Keeper(broken="video")
    metrics = Metrics(keeper)
    metrics.start(tmp_path, {}, None)
    with pytest.warns(UserWarning, match=r"Keeper takes no more videos \(there is no package for it\)"):
        log_media(metrics)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_media(metrics)
    metrics.log(4, {})
    metrics.finish(0)
    assert [one[0] for one in keeper.taken].count("image") == 2
    assert keeper.taken[-1] == ("copy", 4)


def events(folder: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_has_every_row(tmp_path: Path) -> None:
    session(TensorBoardLogger(), tmp_path, [1, 2, 3])
    scalars = events(tmp_path).Scalars("loss")
    assert [(event.step, event.value) for event in scalars] == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_tensorboard_has_texts_histograms_images_and_videos(tmp_path: Path) -> None:
    metrics = Metrics(TensorBoardLogger())
    metrics.start(tmp_path, {}, None)
    log_media(metrics)
    metrics.finish(0)
    found = events(tmp_path)
    (text,) = found.Tensors("note/text_summary")
    assert text.tensor_proto.string_val == [b"a < b"]
    (histogram,) = found.Histograms("weights")
    assert (histogram.histogram_value.num, histogram.histogram_value.sum) == (3.0, 2.0)
    (image,) = found.Images("frame")
    assert (image.step, image.height, image.width) == (3, 8, 6)
    (video,) = found.Images("episode")
    assert video.encoded_image_string.startswith(b"GIF8")


def test_tensorboard_has_no_row_twice_after_a_resume(tmp_path: Path) -> None:
    metrics = Metrics(TensorBoardLogger())
    metrics.start(tmp_path, {}, None)
    for step in (1, 2):
        metrics.log(step, {"loss": step})
    state = metrics.state_dict()
    metrics.log(2, {"eval": 1.0})  # after the checkpoint, at its step
    metrics.log(3, {"loss": 3})
    metrics.finish(1)
    metrics = Metrics(TensorBoardLogger())
    metrics.start(tmp_path, {}, state)
    metrics.log(2, {"eval": 1.0})
    metrics.log(4, {"loss": 4})
    metrics.finish(0)
    found = events(tmp_path)
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 4]
    assert [event.step for event in found.Scalars("eval")] == [2]


def test_tensorboard_goes_on_where_the_last_step_has_the_sessions_first_row(tmp_path: Path) -> None:
    metrics = Metrics(TensorBoardLogger())
    metrics.run_id = "e2fa0e2b"
    metrics.start(tmp_path, {}, None)
    metrics.log(1, {"loss": 1.0})
    state = metrics.state_dict()
    metrics.finish(0)
    assert [*session(TensorBoardLogger(), tmp_path, [2], state)]
    assert [event.step for event in events(tmp_path).Scalars("loss")] == [1, 2]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_column_for_each_name_also_for_those_that_come_later(tmp_path: Path) -> None:
    metrics = Metrics(CsvLogger())
    metrics.start(tmp_path, {}, None)
    metrics.log(1, {"loss": 0.5})
    metrics.log(2, {"loss": float("nan"), "eval/return, mean": 3})
    metrics.log(3, {"loss": 1e-20})
    metrics.finish(0)
    assert list(table(tmp_path)[0]) == ["step", "time", "loss", "eval/return, mean"]
    told = [(row["step"], row["loss"], row["eval/return, mean"]) for row in table(tmp_path)]
    assert told == [("1", "0.5", ""), ("2", "", "3"), ("3", "1e-20", "")]
    assert [float(row["time"]) for row in table(tmp_path)] == [row["time"] for row in rows(tmp_path)]


def test_csv_is_what_metrics_jsonl_is_after_a_resume(tmp_path: Path) -> None:
    state = session(CsvLogger(), tmp_path, [1, 2])
    session(LocalLogger(), tmp_path, [3], state)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ti')
    session({"csv": CsvLogger()}, tmp_path, [3, 4], state)
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "3", "4"]


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
    assert time.monotonic() - begin < patience(1)
    return fake.calls, end, [str(warning.message) for warning in caught]


def test_wandb_keeps_its_id_on_resume_and_carries_its_own_step(tmp_path: Path, monkeypatch: Any) -> None:
    calls, state, _ = wandb_session(monkeypatch, tmp_path)
    assert [name for name, _ in calls] == ["init", "log", "log", "finish"]
    assert calls[2][1]["row"] == {"loss": 1.0, "global_step": 2}
    again, end, _ = wandb_session(monkeypatch, tmp_path, state)
    assert again[0][1]["id"] == calls[0][1]["id"] == end["copies"]["wandb"]["id"]
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
    assert first["id"] != second["id"] == end["copies"]["wandb"]["id"]
    assert told == ["wandb is not reachable (no route); this run is logged offline"]
    assert [name for name, _ in calls].count("log") == 2


def test_the_id_outlives_a_session_in_which_wandb_does_not_start(tmp_path: Path, monkeypatch: Any) -> None:
    _, state, _ = wandb_session(monkeypatch, tmp_path)
    _, later, _ = wandb_session(monkeypatch, tmp_path, state, init=fault(RuntimeError("broken")))
    assert later["copies"] == state["copies"]


@pytest.mark.parametrize(("key", "mode"), [("", "offline"), ("x" * 40, "online")])
def test_auto_is_online_with_a_key_and_offline_without(key: str, mode: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    calls, _, _ = wandb_session(monkeypatch, tmp_path)
    assert calls[0][1]["mode"] == mode
