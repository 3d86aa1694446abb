"""A copy of the metrics in MLflow."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hsw.directory import is_within
from hsw.run.logger import Logger, gif

_MOST_PARAMETERS = 100  # of one call


class MlflowLogger(Logger):
    """Logs to MLflow: one run per job, continued on resume. Needs the extra mlflow (mlflow-skinny suffices).

    Args:
        experiment: To which the run belongs; made if it is not there.
        name: Of the run; None is its folder's.
        tracking_uri: Where MLflow keeps its runs; None is what MLFLOW_TRACKING_URI says, or else the run folder's
            mlruns/.
        tags: Words that are set as tags.
    """

    def __init__(
        self,
        experiment: str = "hsw",
        name: str | None = None,
        tracking_uri: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        self.experiment, self.name, self.tracking_uri = experiment, name, tracking_uri
        self.tags = list(tags or [])
        self._id: str | None = None
        self._elsewhere: str | None = None

    @classmethod
    def destinations(cls, options: Mapping[str, Any]) -> Collection[str]:
        given = options.get("tracking_uri")
        return [] if given in (None, os.environ.get("MLFLOW_TRACKING_URI")) else ["tracking_uri"]

    def open(self, folder: Path, config: dict[str, Any], state: Any) -> None:
        # MLflow 3 asks for a database unless one says that files will do; and it reports home unless one says no.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param, RunStatus
        from mlflow.tracking import MlflowClient

        store = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or (folder.resolve() / "mlruns").as_uri()
        self._client: Any = MlflowClient(tracking_uri=store)  # not the module's own run, which a process has one of
        self._id = (state or {}).get("id")
        if self._id:
            self._client.update_run(self._id, status=RunStatus.to_string(RunStatus.RUNNING))
            self._look_where_files_go(folder, store)
            return
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        # With a name of ours, because MLflow would draw one from the global generator.
        run = self._client.create_run(
            experiment, run_name=self.name or folder.resolve().name, tags=dict.fromkeys(self.tags, "true")
        )
        self._id = run.info.run_id
        self._look_where_files_go(folder, store)
        parameters = [Param(name, value[:500]) for name, value in _leaves(config)]
        for first in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self._id, params=parameters[first : first + _MOST_PARAMETERS])

    def _look_where_files_go(self, folder: Path, store: str) -> None:
        """A store within the run folder says so itself, and is data as the rest of it."""
        place = self._client.get_run(self._id).info.artifact_uri
        self._elsewhere = place if is_within(store, folder) and not is_within(place, folder) else None

    def copy(self, step: int, metrics: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        self._client.log_batch(self._id, [Metric(name, float(value), now, step) for name, value in metrics.items()])

    def log_text(self, step: int, name: str, text: str) -> None:
        self._refuse_elsewhere()
        self._client.log_text(self._id, text, f"{name}/{step}.txt")

    def log_image(self, step: int, name: str, image: Any) -> None:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "png")
        self._keep(f"{name}/{step}.png", file)

    def log_video(self, step: int, name: str, frames: Any, fps: int = 30) -> None:
        self._keep(f"{name}/{step}.gif", gif(frames, fps))

    def close(self, exit_code: int) -> None:
        status = "FINISHED" if exit_code == 0 else "KILLED" if exit_code > 128 else "FAILED"
        self._client.set_terminated(self._id, status)

    def copy_state(self) -> Any:
        return {"id": self._id} if self._id else None

    def _refuse_elsewhere(self) -> None:
        if self._elsewhere:
            raise ValueError(f"its store would keep files in {self._elsewhere}, outside of the run folder")

    def _keep(self, path: str, content: io.BytesIO) -> None:
        import tempfile

        self._refuse_elsewhere()
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary, name)
            file.write_bytes(content.getvalue())
            self._client.log_artifact(self._id, str(file), folder or None)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The config's values by dotted name; a list is one value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(node)
