"""The callbacks that come with hsw: conf/callbacks names them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from hsw.agent.base import Agent
from hsw.agent.evaluation import evaluate
from hsw.agent.video import Recorder, require_imageio
from hsw.bounds import Range
from hsw.env import VectorEnv
from hsw.errors import ConfigError
from hsw.run.callback import Callback
from hsw.run.services import Every
from hsw.seeding import EVAL_ENV, derive_seed

Metric = Literal["return", "success"]


class StopAtScore(Callback):
    """Ends the run when an evaluation reaches a score.

    Args:
        score: To reach.
        metric: The evaluation's mean return, or the share of its episodes that succeed.
    """

    def __init__(self, score: float, metric: Metric = "return") -> None:
        self.score, self.metric = score, metric

    def on_run_start(self, agent: Agent) -> None:
        _require_evaluations(agent, type(self).__name__)

    def on_evaluation_end(self, agent: Agent, scores: dict[str, Any]) -> None:
        reached = _score(scores, self.metric)
        if reached >= self.score:
            agent.request_stop(f"{self.metric} {reached:g} has reached {self.score:g}")


class StopWithoutImprovement(Callback):
    """Ends the run when so many evaluations in a row are no better than the best one before them.

    Args:
        patience: Evaluations.
        min_delta: What is better by less than this is no better.
        metric: The evaluation's mean return, or the share of its episodes that succeed.
    """

    def __init__(
        self,
        patience: Annotated[int, Range(1)] = 10,
        min_delta: Annotated[float, Range(0)] = 0.0,
        metric: Metric = "return",
    ) -> None:
        self.patience, self.min_delta, self.metric = patience, min_delta, metric
        self.best: float | None = None
        self.count = 0  # of evaluations that were no better

    def on_run_start(self, agent: Agent) -> None:
        _require_evaluations(agent, type(self).__name__)

    def on_evaluation_end(self, agent: Agent, scores: dict[str, Any]) -> None:
        score = _score(scores, self.metric)
        better = self.best is None or (score > self.best and score - self.best >= self.min_delta)
        self.count = 0 if better else self.count + 1
        self.best = score if better else self.best
        if self.count >= self.patience:
            agent.request_stop(f"{self.count} evaluations in a row were no better than {self.metric} {self.best:g}")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.count = state["best"], state["count"]


class RecordVideo(Callback):
    """Plays episodes now and then, and writes them into the run folder's videos/ and to loggers that take videos.

    The episodes are those of an environment of their own: they change nothing in the training.

    Args:
        interval: Steps between videos.
        episodes: Of each video.
        fps: Frames per second.
    """

    def __init__(
        self,
        interval: Annotated[int, Range(1)] = 100_000,
        episodes: Annotated[int, Range(1)] = 1,
        fps: Annotated[int, Range(1)] = 30,
    ) -> None:
        self.episodes, self.fps = episodes, fps
        self.every = Every(interval)

    def on_run_start(self, agent: Agent) -> None:
        if agent.services.folder is None:
            raise ConfigError("RecordVideo writes into a run folder; give the agent one, or leave the callback out")
        require_imageio("callbacks=record_video")
        env = self._make_env(agent)  # better now than after hours
        try:
            env.reset()
            if env.frame() is None:
                raise ConfigError("RecordVideo: this environment renders no frames and observes no images")
        finally:
            env.close()

    def on_iteration_end(self, agent: Agent, metrics: dict[str, float]) -> None:
        if self.every.due(agent.step):
            self.every.done(agent.step)
            self.record(agent)

    def record(self, agent: Agent) -> Path:
        """Play and write a video. Returns its path."""
        assert agent.services.folder is not None
        folder = agent.services.folder.path / "videos"
        folder.mkdir(exist_ok=True)
        recorder, env = Recorder(self.fps), self._make_env(agent)
        env.load_obs_statistics(agent.env.obs_statistics())
        try:
            settings = self.episodes, agent.eval_deterministic, agent.seed, agent.device
            evaluate(agent.policy, env, *settings, on_step=recorder)
        finally:
            env.close()
        agent.services.logger.log_video(agent.step, "video", np.stack(recorder.frames), self.fps)
        return recorder.write(folder / f"step-{agent.step}")

    def _make_env(self, agent: Agent) -> VectorEnv:
        if agent.env.remake is None:
            raise ConfigError(
                "RecordVideo cannot build this environment anew; give the agent one of hsw.env.make_env, or a function "
                "that makes it"
            )
        options = {"seed": derive_seed(agent.seed, EVAL_ENV), "training": False, "num_envs": 1}
        try:
            return agent.env.remake(**options, render_mode="rgb_array")
        except (ConfigError, TypeError):  # it takes no render_mode; its observations may be images
            return agent.env.remake(**options)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.every.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.every.done(state["last"])


class Histograms(Callback):
    """Shows the distributions of weights, and of the last update's gradients, to loggers that take histograms.

    Args:
        interval: Steps between them.
        gradients: Also the gradients.
    """

    def __init__(self, interval: Annotated[int, Range(1)] = 10_000, gradients: bool = True) -> None:
        self.gradients = gradients
        self.every = Every(interval)

    def on_iteration_end(self, agent: Agent, metrics: dict[str, float]) -> None:
        if not self.every.due(agent.step):
            return
        self.every.done(agent.step)
        log = agent.services.logger.log_histogram
        for name, parameter in agent.policy.named_parameters():
            log(agent.step, f"weights/{name}", parameter.detach().flatten().float().cpu().numpy())
            if self.gradients and parameter.grad is not None:
                log(agent.step, f"gradients/{name}", parameter.grad.detach().flatten().float().cpu().numpy())

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.every.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.every.done(state["last"])


def _require_evaluations(agent: Agent, name: str) -> None:
    if agent.eval_env is None or agent.every_eval.interval is None:
        raise ConfigError(f"{name} needs evaluations while the run trains; set eval_interval=<steps>")


def _score(scores: dict[str, Any], metric: Metric) -> float:
    if metric == "success" and "success" not in scores:
        raise ConfigError("metric=success: this environment does not tell of success; take metric=return")
    return float(scores["mean" if metric == "return" else "success"])
