"""Loggers: each copies the rows of metrics.jsonl, which is the truth, to another place.

One that is written elsewhere is a subclass of Logger. It overrides what it needs, and whatever it raises is told once
and ends its copy, never the run.
"""

from __future__ import annotations

import html
import io
import json
import os
import secrets
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from hsw.directory import lines_of


class Logger:
    """A copy of the run's metrics; this one is none. Texts, histograms, images and videos are for those that take them.

    Histograms come as a flat array of finite numbers, images as uint8 [H, W, C] and videos as uint8 [T, H, W, C].
    """

    @classmethod
    def destinations(cls, options: Mapping[str, Any]) -> Collection[str] | None:
        """Which of its options name a place outside of the run folder.

        Of a stored config these count only if the command line, or the environment, names the same.

        Args:
            options: The constructor's, by name.

        Returns:
            Their names, without those that the environment agrees with. None if it cannot tell: then an address or
            a path among them is one.
        """
        return None

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        """Begin a copy.

        Args:
            folder: Of the run; its metrics.jsonl holds the rows so far, of a resumed run those up to its checkpoint.
            config: The resolved config.
            state: What copy_state returned before the run was interrupted; None if it begins.
        """

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        """Copy one row, which metrics.jsonl has already."""

    def log_text(self, step: int, name: str, text: str) -> None:
        """Copy a text."""

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        """Copy the distribution of values."""

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Copy an image."""

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        """Copy a video."""

    def close(self, exit_code: int) -> None:
        """End the copy."""

    def abandon(self) -> None:
        """The copy failed: leave nothing behind that would spoil the next run's in this process."""

    def copy_state(self) -> Any:
        """What continues the copy on resume: JSON."""
        return None


class LocalLogger(Logger):
    """metrics.jsonl and nothing else."""


class TensorBoardLogger(Logger):
    """Event files in the run folder's tensorboard/, with texts, histograms, images and videos (animated gifs)."""

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        last = [json.loads(line) for line in _lines_of_last_step(folder / "metrics.jsonl")]
        # Readers forget what earlier files have from this step on. Its rows follow again, because some of those may
        # have been logged after the checkpoint from which the run goes on.
        step = last[0]["step"] if last else None
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        for row in last:
            self.copy(row.pop("step"), {name: value for name, value in row.items() if name not in ("time", "run")})

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._add("scalar", name, float("nan") if value is None else value, step)

    def log_text(self, step: int, name: str, text: str) -> None:
        self._add("text", name, text, step)

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        self._add("histogram", name, values, step)

    def log_image(self, step: int, name: str, image: Any) -> None:
        self._add("image", name, image, step, dataformats="HWC")

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        _, height, width, channels = frames.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=gif(frames, fps).getvalue()
        )
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer.file_writer.add_summary(summary, step)

    def close(self, exit_code: int) -> None:
        self._writer.close()

    def _add(self, kind: str, name: str, value: Any, step: int, **options: Any) -> None:
        getattr(self._writer, f"add_{kind}")(name, value, step, **options)


class WandbLogger(Logger):
    """Also logs to Weights & Biases: one run per job, continued on resume.

    Args:
        project, entity, group, name, tags: As in wandb.init.
        mode: "auto" is what WANDB_MODE says, or else online with an API key and offline without one. An online run
            that cannot start within init_timeout seconds goes on offline.
        init_timeout: Longest wait for the server at the start, in seconds.
        finish_timeout: Longest wait at the end, in seconds.
    """

    def __init__(
        self,
        project: str = "hsw",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        init_timeout: float = 30.0,
        finish_timeout: float = 30.0,
    ) -> None:
        self.options = {"project": project, "entity": entity, "group": group, "name": name}
        self.tags = list(tags or [])
        self.mode, self.init_timeout, self.finish_timeout = mode, init_timeout, finish_timeout
        self._run: Any = None
        self._id: str | None = None

    @classmethod
    def destinations(cls, options: Mapping[str, Any]) -> Collection[str]:
        # The server is the environment's alone; of it, whose account, and whether anything is sent at all.
        environ = os.environ
        elsewhere = options.get("entity") not in (None, environ.get("WANDB_ENTITY"))
        sends = options.get("mode") == "online" and environ.get("WANDB_MODE", "online") != "online"
        return ["entity"] * elsewhere + ["mode"] * sends

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        # Reports about wandb itself wait for the server when the process ends, for as long as they like.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode: Any = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._id = (state or {}).get("id") or secrets.token_hex(4)
        common: dict[str, Any] = {**self.options, "tags": self.tags, "dir": str(folder), "config": config}
        # The console is the run's own log already; and nothing of the machine's environment is to be uploaded.
        settings: dict[str, Any] = {
            "console": "off",
            "init_timeout": self.init_timeout,
            "x_disable_meta": True,
            "disable_git": True,
            "silent": True,
        }
        try:
            self._run = wandb.init(
                **common, id=self._id, mode=mode, resume="allow" if state else None, settings=wandb.Settings(**settings)
            )
        except Exception as error:
            if mode != "online":
                raise
            reason = str(error).partition("\n")[0]
            warnings.warn(f"wandb is not reachable ({reason}); this run is logged offline", stacklevel=2)
            self._id = secrets.token_hex(4)  # wandb holds the first to be in use
            self._run = wandb.init(**common, id=self._id, mode="offline", settings=wandb.Settings(**settings))
        # Steps may go back after a resume, and wandb drops such rows: they carry their own step instead.
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({**metrics, "global_step": step})

    def log_text(self, step: int, name: str, text: str) -> None:
        import wandb

        self._log(step, name, wandb.Html(f"<pre>{html.escape(text)}</pre>"))

    def log_histogram(self, step: int, name: str, values: Any) -> None:
        import wandb

        self._log(step, name, wandb.Histogram(values))

    def log_image(self, step: int, name: str, image: Any) -> None:
        import wandb

        self._log(step, name, wandb.Image(image))

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        import wandb

        self._log(step, name, wandb.Video(gif(frames, fps), format="gif"))

    def _log(self, step: int, name: str, value: Any) -> None:
        self._run.log({name: value, "global_step": step})

    def close(self, exit_code: int) -> None:
        self._bounded(lambda: self._run.finish(exit_code=exit_code))

    def abandon(self) -> None:
        import wandb

        self._bounded(wandb.teardown)  # all runs of a process share a service; the next run starts another

    def _bounded(self, end: Callable[[], Any]) -> None:
        """wandb's own waits are unbounded when its service is gone."""
        import threading

        errors: list[Exception] = []

        def run() -> None:
            try:
                end()
            except Exception as error:
                errors.append(error)

        ending = threading.Thread(target=run, daemon=True)
        ending.start()
        ending.join(self.finish_timeout)
        if errors:
            raise errors[0]
        if ending.is_alive():
            raise TimeoutError(f"wandb did not finish within {self.finish_timeout:g} s")

    def copy_state(self) -> Any:
        return {"id": self._id} if self._id else None


def gif(frames: Any, fps: int) -> io.BytesIO:
    """An animated gif of frames, uint8 [T, H, W, C] with one channel or three."""
    from PIL import Image

    images = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in frames]
    file = io.BytesIO()
    images[0].save(file, "gif", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    file.seek(0)
    return file


def _lines_of_last_step(path: Path) -> list[bytes]:
    """The rows of metrics.jsonl at the step of its last one."""
    lines: list[bytes] = []
    step = None
    if not path.is_file():
        return lines
    with path.open("rb") as file:
        for line in lines_of(file):
            now = json.loads(line)["step"]
            lines = [*lines, line] if now == step else [line]
            step = now
    return lines
