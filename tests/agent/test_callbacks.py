"""Callbacks: what they are told, when and how often, what they may ask for, and those that come with hsw."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsw.agent.callbacks import Histograms, RecordVideo, StopAtScore, StopWithoutImprovement
from hsw.errors import ConfigError, Interrupted
from hsw.run.callback import Callback
from hsw.run.folder import RunFolder
from hsw.run.logger import LocalLogger
from hsw.run.metrics import Metrics
from hsw.run.services import Run
from tests.agent.helpers import agent, distributed_agent, replay_agent
from tests.env.helpers import make
from tests.runs import agent_of, call, compose, newest, rows, run_dir, tiny_run

EVALUATION: dict[str, Any] = {
    "eval_env": lambda: make("Noise", 1, seed=9),
    "eval_episodes": 1,
    "eval_interval": 100,
}


class Diary(Callback):
    """Writes down every event, with the step."""

    def __init__(self) -> None:
        self.events: list[list[Any]] = []

    def on_run_start(self, agent: Any) -> None:
        self.events.append(["start", agent.step, agent.session])

    def on_run_end(self, agent: Any, error: BaseException | None) -> None:
        self.events.append(["end", agent.step, type(error).__name__])

    def on_iteration_end(self, agent: Any, metrics: dict[str, float]) -> None:
        assert "speed/steps_per_second" in metrics
        self.events.append(["iteration", agent.step])

    def on_evaluation_end(self, agent: Any, scores: dict[str, Any]) -> None:
        assert scores is agent.last_scores
        self.events.append(["evaluation", agent.step])

    def on_checkpoint(self, agent: Any, path: Path) -> None:
        assert (path / "manifest.json").is_file()
        self.events.append(["checkpoint", agent.step])

    def state_dict(self) -> dict[str, Any]:
        return {"events": [list(event) for event in self.events]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.events = state["events"]

    def of(self, *kinds: str) -> list[list[Any]]:
        return [event for event in self.events if event[0] in kinds]


def run_in(folder: Path, **kwargs: Any) -> Run:
    return Run(RunFolder(folder), LocalLogger(), checkpoint_interval=100, **kwargs)


def test_events_come_in_order_and_once_each(tmp_path: Path) -> None:
    diary = Diary()
    trained = agent("Noise", run=run_in(tmp_path), callbacks={"diary": diary}, **EVALUATION)
    trained.train(250)
    assert diary.events[0] == ["start", 0, 1]
    assert diary.events[-1] == ["end", trained.step, "NoneType"]
    steps = [row["step"] for row in rows(tmp_path) if "learn/policy_loss" in row]
    assert [event[1] for event in diary.of("iteration")] == steps
    evaluations = [row["step"] for row in rows(tmp_path) if "eval/return_mean" in row]
    assert [event[1] for event in diary.of("evaluation")] == evaluations
    assert evaluations[-1] == trained.step
    first = next(step for step in steps if step >= 100)
    at = [event[0] for event in diary.events if event[1] == first]
    assert at == ["iteration", "checkpoint", "evaluation"]  # the evaluation begins the next iteration
    assert [event[0] for event in diary.events if event[1] == trained.step] == [
        *("iteration", "evaluation", "checkpoint", "end")
    ]


@pytest.mark.parametrize("build", [agent, replay_agent], ids=["on_policy", "off_policy"])
def test_a_run_that_was_stopped_and_resumed_tells_each_event_once(build: Any, tmp_path: Path) -> None:
    name = "Noise" if build is agent else "Aim"
    evaluation = {**EVALUATION, "eval_env": lambda: make(name, 1, seed=9)}

    def diary_of(folder: Path, stop_at: int | None = None) -> list[list[Any]]:
        diary = Diary()
        trained = build(name, run=run_in(folder), callbacks=[diary], **evaluation)
        if (folder / "checkpoints").exists():
            trained.load_state_dict(trained.services.load())
        step = trained.env.step

        def stepping(actions: Any) -> Any:
            if stop_at is not None and trained.step >= stop_at:
                trained.services.signals.requested = signal.SIGTERM
            return step(actions)

        trained.env.step = stepping
        try:
            trained.train(260)
        except Interrupted:
            pass
        trained.services.folder.close()
        return diary.events

    whole = diary_of(tmp_path / "whole")
    diary_of(tmp_path / "parts", stop_at=120)
    parts = diary_of(tmp_path / "parts")
    told = lambda events: [event for event in events if event[0] in ("iteration", "evaluation")]
    assert told(parts) == told(whole)
    # The end of the first session came after its checkpoint, which does not know of it.
    assert [event[2] for event in parts if event[0] in ("start", "end")] == [1, 2, "NoneType"]


def test_actors_and_a_learner_tell_too(tmp_path: Path) -> None:
    diary = Diary()
    trained = distributed_agent("Noise", folder=tmp_path, callbacks=[diary], log_interval=50, checkpoint_interval=100)
    trained.train(200)
    assert [event[0] for event in diary.events[:2]] == ["start", "iteration"]
    assert [event[0] for event in diary.events[-3:]] == ["evaluation", "checkpoint", "end"]
    assert len(diary.of("iteration")) >= 3
    assert trained.last_scores is not None
    assert len(trained.last_scores["returns"]) == 2


class StopAfter(Callback):
    """Asks to stop at the end of the nth iteration."""

    def __init__(self, iterations: int) -> None:
        self.left = iterations

    def on_iteration_end(self, agent: Any, metrics: dict[str, float]) -> None:
        self.left -= 1
        if self.left == 0:
            agent.request_stop("that is enough")


@pytest.mark.parametrize("build", [agent, replay_agent, distributed_agent])
def test_a_callback_that_asks_ends_the_run_as_its_budget_does(build: Any, tmp_path: Path, caplog: Any) -> None:
    options = {} if build is agent else {"log_interval": 40}
    evaluation = {"eval_env": lambda: make("Aim" if build is replay_agent else "Bandit", 1, seed=9), "eval_episodes": 1}
    where = {"folder": tmp_path} if build is distributed_agent else {"run": run_in(tmp_path)}
    trained = build(callbacks=[StopAfter(2)], **where, **options, **evaluation)
    with caplog.at_level("INFO", "hsw"):
        scores = trained.train(100_000)
    assert trained.step < 1000
    assert trained.stop_reason == "that is enough"
    assert f"stopped at step {trained.step}: that is enough" in caplog.text
    assert scores is None if build is distributed_agent else scores == trained.last_scores
    assert len([row for row in rows(tmp_path) if "eval/return_mean" in row]) == 1
    assert newest(tmp_path)["step"] == trained.step
    # Who goes on with it wants it to go on.
    before = trained.step
    trained.train(before + 40)
    assert trained.step >= before + 40


def test_a_stop_that_was_asked_for_survives_a_signal_in_the_final_evaluation(tmp_path: Path) -> None:
    def build() -> Any:
        return agent("Noise", run=run_in(tmp_path), callbacks=[StopAfter(2)], **EVALUATION)

    trained = build()
    evaluate, steps = trained.eval, trained.step

    def stopping() -> Any:
        trained.services.signals.requested = signal.SIGTERM
        return evaluate()

    trained.eval = stopping
    with pytest.raises(Interrupted):
        trained.train(10_000)
    steps = trained.step
    trained.services.folder.close()
    resumed = build()
    resumed.load_state_dict(resumed.services.load())
    resumed.train(10_000)
    assert resumed.step == steps
    assert resumed.stop_reason == "that is enough"


class Failing(Callback):
    def on_run_end(self, agent: Any, error: BaseException | None) -> None:
        raise RuntimeError("no power")


def test_an_error_at_the_end_does_not_hide_what_ended_the_run() -> None:
    with pytest.raises(RuntimeError, match="no power"):
        agent("Noise", callbacks=[Failing()]).train(50)
    trained = agent("Noise", callbacks=[Failing()])
    trained.services.signals.requested = signal.SIGTERM
    with pytest.raises(Interrupted):
        trained.train(50)


def test_what_is_no_callback_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"Thing cannot be the callback Thing: it has no on_run_start, .* and "):
        agent("Noise", callbacks=[type("Thing", (), {})()])


def test_callbacks_in_a_row_are_told_apart_by_their_classes() -> None:
    trained = agent("Noise", callbacks=[Diary(), StopAfter(9), Diary()])
    assert list(trained.state_dict()["callbacks"]) == ["Diary", "StopAfter", "Diary-2"]


# -- those that come with hsw ---------------------------------------------------------------------------------------


def scored(*callbacks: Callback, returns: list[float], success: bool = False) -> tuple[Any, int]:
    """An agent whose evaluations have these returns, and how many there were."""
    trained = agent("Noise", callbacks=list(callbacks), **EVALUATION)
    count, evaluate = [0], trained.eval

    def evaluating() -> dict[str, Any]:
        count[0] += 1
        mean = returns[min(count[0], len(returns)) - 1]
        return {**evaluate(), "mean": mean, **({"success": mean / 10} if success else {})}

    trained.eval = evaluating  # type: ignore[method-assign]
    trained.train(1000)
    return trained, count[0]


def test_a_score_that_is_reached_ends_the_run_without_another_evaluation() -> None:
    trained, count = scored(StopAtScore(5.0), returns=[1.0, 4.9, 5.0, 9.0])
    assert count == 3
    assert trained.stop_reason == "return 5 has reached 5"
    trained, count = scored(StopAtScore(0.4, "success"), returns=[1.0, 4.0], success=True)
    assert count == 2
    assert trained.stop_reason == "success 0.4 has reached 0.4"
    with pytest.raises(ConfigError, match="does not tell of success"):
        scored(StopAtScore(0.4, "success"), returns=[1.0])


def test_evaluations_that_are_no_better_end_the_run() -> None:
    for min_delta, count in ((0.0, 6), (1.0, 4)):
        watching = StopWithoutImprovement(patience=2, min_delta=min_delta)
        trained, evaluations = scored(watching, returns=[1.0, 3.0, 2.0, 3.5, 3.5, 3.4, 9.0])
        assert evaluations == count
        assert "2 evaluations in a row were no better" in trained.stop_reason
    going_on = StopWithoutImprovement(patience=2)
    going_on.load_state_dict(watching.state_dict())
    assert (going_on.best, going_on.count) == (watching.best, watching.count)


def test_a_callback_that_waits_for_evaluations_refuses_a_run_that_has_none_on_the_way() -> None:
    for callback in (StopAtScore(1.0), StopWithoutImprovement()):
        with pytest.raises(ConfigError, match="set eval_interval"):
            agent("Noise", callbacks=[callback], eval_env=lambda: make("Noise", 1)).train(50)


class Collecting(LocalLogger):
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.histograms: list[tuple[int, str, np.ndarray]] = []
        self.videos: list[tuple[int, str, np.ndarray]] = []

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        self.histograms.append((step, name, values))

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        self.videos.append((step, name, frames))


def test_histograms_are_those_of_the_weights_and_gradients_as_they_are() -> None:
    logger = Collecting()
    trained = agent("Noise", run=Run(logger=logger), callbacks=[Histograms(interval=100)])
    seen: list[dict[str, torch.Tensor]] = []
    log = logger.log_histogram

    def logging(step: int, name: str, values: Any) -> None:
        kind, _, parameter = name.partition("/")
        own = dict(trained.policy.named_parameters())[parameter]
        expected = own if kind == "weights" else own.grad
        assert expected is not None
        np.testing.assert_array_equal(values, expected.detach().flatten().numpy())
        seen.append({})
        log(step, name, values)

    logger.log_histogram = logging  # type: ignore[method-assign]
    trained.train(250)
    names = {name for _, name, _ in logger.histograms}
    assert names == {
        f"{kind}/{name}" for kind in ("weights", "gradients") for name, _ in trained.policy.named_parameters()
    }
    assert len({step for step, *_ in logger.histograms}) == 2


def test_videos_are_recorded_while_the_run_trains_and_change_nothing_in_it(tmp_path: Path) -> None:
    pytest.importorskip("imageio")
    pixels = ("env.id=CartPole-v1", "num_train_steps=128")
    ends = []
    for folder, callbacks in ((tmp_path / "with", {"video": RecordVideo(interval=50)}), (tmp_path / "without", {})):
        with agent_of("agent=ppo", *pixels, folder=folder) as trained:
            trained.watchers.by_name.update(callbacks)
            logger = Collecting()
            trained.services.logger = Metrics(logger)
            trained.train(128)
            ends.append(trained.state_dict()["policy"])
        if callbacks:
            videos = {path.stem: path.stat().st_size for path in (folder / "videos").iterdir()}
            assert set(videos) == {f"step-{step}" for step, *_ in logger.videos}
            assert len({step // 50 for step, *_ in logger.videos}) == len(videos) >= 2
            assert min(videos.values()) > 0
            assert logger.videos[0][2].ndim == 4
    assert all(map(torch.equal, ends[0].values(), ends[1].values()))


def test_an_environment_that_shows_nothing_is_refused_before_the_training(tmp_path: Path) -> None:
    pytest.importorskip("imageio")
    with pytest.raises(ConfigError, match="renders no frames"):
        agent("Noise", run=run_in(tmp_path), callbacks=[RecordVideo()]).train(50)
    with pytest.raises(ConfigError, match="run folder"):
        agent("Noise", callbacks=[RecordVideo()]).train(50)


def test_more_checkpoints_are_kept_if_asked(tmp_path: Path) -> None:
    trained = agent("Noise", run=run_in(tmp_path, checkpoint_keep=3))
    trained.train(500)
    assert len([path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]) == 3


# -- from the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "names", "patience"),
    [
        ((), [], None),
        (("callbacks=early_stop",), ["early_stop"], 10),
        (("callbacks=[early_stop,record_video]",), ["early_stop", "record_video"], 10),
        (("callbacks=early_stop", "callbacks.early_stop.patience=5"), ["early_stop"], 5),
        (("callbacks=[early_stop,histograms]", "~callbacks.early_stop"), ["histograms"], None),
        (("callbacks=early_stop", "+callbacks.mine._target_=a.B"), ["early_stop", "mine"], 10),
        (("+callbacks.mine._target_=a.B",), ["mine"], None),
    ],
)
def test_callbacks_are_chosen_by_name_and_changed_and_left_out(overrides: Any, names: list[str], patience: Any) -> None:
    callbacks = compose(*overrides).callbacks
    assert list(callbacks) == names
    if patience is not None:
        assert callbacks.early_stop.patience == patience


@pytest.mark.parametrize("recipe", ["ppo", "sac", "impala"])
def test_a_callback_of_the_command_line_ends_a_run_that_is_then_done(recipe: str, tmp_path: Path) -> None:
    stop = ("callbacks=stop_at_score", "callbacks.stop_at_score.score=-1000", "eval_interval=40")
    done = call(*tiny_run(recipe), *stop, "num_train_steps=5000", run_dir(tmp_path))
    assert done.code == 0, done.err
    assert '"done"' in (tmp_path / "status.json").read_text()
    assert newest(tmp_path)["step"] < 1000
    assert "has reached -1000" in (tmp_path / "train.log").read_text()
