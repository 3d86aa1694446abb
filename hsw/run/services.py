"""What a loop asks of the run around it: log, save, stop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import torch

from hsw.errors import CorruptError, HswError, NonFiniteError, ResourceError
from hsw.output import Service
from hsw.ranks import current
from hsw.run import checkpoint
from hsw.run.folder import RunFolder, UnownedFolder
from hsw.run.metrics import LoggerLike, Metrics
from hsw.run.progress import Progress
from hsw.run.rank_parts import RankParts
from hsw.run.signals import StopSignals
from hsw.run.state_files import ranks_of
from hsw.run.watched import tell_saved
from hsw.secrets import redact_all
from hsw.template import Anything, Named, Number, Whole, hold

log = logging.getLogger("hsw")


class Every:
    """True once per interval of steps, however far a loop strides: on crossing a multiple, not on hitting it.

    Args:
        interval: None never is due.
    """

    def __init__(self, interval: int | None) -> None:
        self.interval = interval
        self.last = 0

    def due(self, step: int) -> bool:
        return self.interval is not None and step // self.interval > self.last // self.interval

    def done(self, step: int) -> None:
        self.last = step


class Run:
    """The services around a training loop. Without a folder nothing is written: the library's silent default.

    Args:
        folder: Where the run leaves its checkpoints and metrics.
        logger: Where metrics are copied to, beside metrics.jsonl: a logger, or several by name.
        config: The resolved config, which the logger hands on.
        checkpoint_interval: Steps between checkpoints.
        quiet: Show no progress.
        checkpoint_keep: How many checkpoints are kept, the newest.
        parts: How checkpoints are written where several ranks train; those after the first have no folder.
    """

    def __init__(
        self,
        folder: RunFolder | None = None,
        logger: LoggerLike = None,
        config: dict[str, Any] | None = None,
        checkpoint_interval: int | None = None,
        quiet: bool = True,
        checkpoint_keep: int = 2,
        parts: RankParts | None = None,
    ) -> None:
        self.folder, self.parts = folder, parts
        self.logger = Metrics(logger)
        self.config = config or {}
        self.every_checkpoint = Every(checkpoint_interval if folder or current().size > 1 else None)
        self.quiet, self.checkpoint_keep = quiet, checkpoint_keep
        self.signals = StopSignals()
        self.progress = Progress(1, quiet=True)
        self.session = 0  # how often the run has been started
        self.num_train_steps: int | None = None  # this session's budget, once it has begun
        self.saved_step: int | None = None
        self.agent: Any = None  # whom this serves, where somebody wants to know
        self.trusts: list[str] = []  # what a command line must allow to resume it
        self._checkpoint: Path | None = None  # the last one saved or loaded
        self._restored: dict[str, Any] | None = None
        self.built_from: str | None = None  # of the config that the run is built from, a checksum
        self.restored_from: str | None = None  # of the config that the loaded checkpoint's run was built from
        self.restored_older = True  # a state may lack what later versions save, unless its checkpoint tells better

    @property
    def disk_folder(self) -> Path | None:
        """Where a storage may keep what is too large for memory: the run's folder, if this process may write there."""
        if self.folder:
            return None if isinstance(self.folder, UnownedFolder) else self.folder.path
        return self.parts.folder.parent if self.parts else None

    def start(self, num_train_steps: int, step: int) -> None:
        """Begin to log and to show progress."""
        self.session += 1
        self.num_train_steps = num_train_steps
        progress = Progress(num_train_steps, quiet=self.quiet or not current().is_first)
        self.progress = cast(Progress, Service(progress, "the progress line"))
        self.every_checkpoint.done(step)
        if self.folder:
            checkpoint.sweep_unfinished(self.folder.checkpoints)
            self.logger.run_id = self.folder.run_id
            self.logger.start(self.folder.path, redact_all(self.config), self._restored)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if self.folder:
            self.folder.check()
            self.logger.log(step, metrics)

    def save(self, state: dict[str, Any], step: int, final: bool = False) -> Path | None:
        """Save a checkpoint. Returns its folder, or None if there is none.

        Raises:
            ResourceError: If it is the final one and the disk does not take it; an earlier one only warns.
            NonFiniteError: If the networks are not finite: they never replace what can be resumed.
        """
        if not self.folder and not self.parts:
            return None
        if not checkpoint.all_finite(state["policy"]):
            raise NonFiniteError(f"the networks hold NaN or infinite numbers at step {step}")
        meta = {"step": step, "session": self.session, "settings": self._settings()}
        if self.folder:
            self.folder.check()
            meta |= self._origin(self.folder)
        self.every_checkpoint.done(step)

        def whole() -> dict[str, Any]:
            return {**state, "logger": self.logger.state_dict()} if self.folder else state

        try:
            if self.parts:
                path = self.parts.save(whole, meta, self.checkpoint_keep, self._checkpoint)
            else:
                assert self.folder is not None
                folder = self.folder.checkpoints
                path = checkpoint.save_checkpoint(folder, whole(), meta, self.checkpoint_keep, self._checkpoint)
            self._checkpoint, self.saved_step = path, step
            tell_saved(step)
            return path
        except ResourceError as error:
            if final:
                raise
            log.warning("%s; training goes on, and the next checkpoint may succeed", error)
            return None

    def _settings(self) -> dict[str, Any]:
        """Of what a resumed run may change, that which decides how this session went."""
        return {
            "num_train_steps": self.num_train_steps,
            "checkpoint_interval": self.every_checkpoint.interval,
            "device": None if self.agent is None else str(self.agent.device),
            "threads": torch.get_num_threads(),
        }

    def _origin(self, folder: RunFolder) -> dict[str, Any]:
        return {"run": folder.run_id, "built_from": self.built_from}

    def save_best(self, state: dict[str, Any], step: int, score: float) -> None:
        """Keep the networks of the best evaluation so far."""
        if not self.folder or not checkpoint.all_finite(state):
            return
        self.folder.check()
        try:
            meta = {"step": step, "score": score, **self._origin(self.folder)}
            checkpoint.save_checkpoint(self.folder.best, state, meta, keep=1)
        except ResourceError as error:
            log.warning("%s; training goes on", error)

    def load(self, path: Path | None = None) -> dict[str, Any]:
        """The newest good checkpoint's state; says which were passed over.

        Args:
            path: Take this one instead, which may be another folder's.

        Raises:
            CorruptError: If none is good.
        """
        if self.parts:
            loaded = self.parts.load()
        else:
            assert self.folder is not None
            if path is None:
                loaded = checkpoint.load_newest(self.folder.checkpoints)
            else:
                loaded = checkpoint.Loaded(*checkpoint.read_state(path), [], path)
            if (ranks := ranks_of(loaded.path)) > 1:
                raise CorruptError(f"checkpoint {loaded.path} is of {ranks} learners, and the run's config has one")
        state, meta, complaints, self._checkpoint = loaded
        for complaint in complaints:
            log.warning("%s; the checkpoint before it is used", complaint)
        self.saved_step, session = meta.get("step"), meta.get("session", 1)
        self.restored_from, self.restored_older = meta.get("built_from"), "built_from" not in meta
        if self.saved_step is None or state.get("step") != self.saved_step:
            raise CorruptError(f"checkpoint {self._checkpoint} is of step {self.saved_step} and of {state.get('step')}")
        if self.folder and self._checkpoint.parent != self.folder.checkpoints:
            self._checkpoint = None  # whose rows are elsewhere
        tell_saved(self.saved_step)
        hold(Whole(1), session, "session")
        self.session = session
        if not self.folder:
            return state
        self._restored = state.get("logger")
        if not isinstance(self._restored, dict):
            raise CorruptError(f"checkpoint {self._checkpoint} has no state of a logger")
        clock = {key: self._restored.get(key) for key in ("size", "elapsed")}
        hold({"size": Whole(), "elapsed": Number(0)}, clock, "logger")
        hold(Named(Anything()), self._restored.get("copies", {}), "logger/copies")
        return state

    def save_batch(self, batch: dict[str, Any], step: int) -> Path | None:
        """Keep the batch that made a loss not finite."""
        if not batch or not (self.folder or self.parts):
            return None
        place = self.folder.checkpoints if self.folder else cast(RankParts, self.parts).folder
        rank = self.parts.ranks.rank if self.parts else 0
        path = place.parent / (f"nonfinite-{step}-rank-{rank}" if rank else f"nonfinite-{step}")
        try:
            checkpoint.write_state(path, batch, {"step": step})
        except OSError as error:
            log.warning("cannot save the offending batch: %s", error)
            return None
        return path

    def finish(self, error: BaseException | None) -> None:
        """Close the logger and the progress line."""
        self.progress.close()
        code = 0 if error is None else getattr(error, "exit_code", 1)
        if self.folder:
            self.logger.finish(code)
        if isinstance(error, HswError) and self.saved_step is not None:
            log.warning("the last checkpoint is of step %d", self.saved_step)
