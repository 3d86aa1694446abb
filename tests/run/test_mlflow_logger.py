"""The real MLflow, with a store of files in the run folder. Skipped where it is not installed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from hsw.run.metrics import Metrics
from hsw.run.mlflow_logger import MlflowLogger
from tests.run.test_logger import log_media, session


@pytest.fixture
def mlflow(monkeypatch: Any) -> Any:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return pytest.importorskip("mlflow")


def stored(mlflow: Any, folder: Path) -> Any:
    """A client of the folder's store, and its only run."""
    client = mlflow.tracking.MlflowClient((folder / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("hsw").experiment_id])
    return client, run


def test_mlflow_has_every_row_the_config_and_how_it_ended(mlflow: Any, tmp_path: Path) -> None:
    before = random.getstate()
    session(MlflowLogger(tags=["ppo"]), tmp_path, [1, 2, 3])
    assert random.getstate() == before  # the run's own random numbers
    client, run = stored(mlflow, tmp_path)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert run.data.params == {"seed": "1"}
    assert run.data.tags["ppo"] == "true"
    assert (run.info.run_name, run.info.status) == (tmp_path.name, "FINISHED")


def test_mlflow_goes_on_with_its_run_after_a_resume(mlflow: Any, tmp_path: Path) -> None:
    state = session(MlflowLogger(), tmp_path, [1])
    session({"mlflow": MlflowLogger()}, tmp_path, [2], state)
    client, run = stored(mlflow, tmp_path)
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]


def test_mlflow_keeps_texts_images_and_videos_as_files(mlflow: Any, tmp_path: Path) -> None:
    metrics = Metrics(MlflowLogger())
    metrics.start(tmp_path, {}, None)
    log_media(metrics)
    metrics.finish(143)
    client, run = stored(mlflow, tmp_path)
    assert run.info.status == "KILLED"
    found = {
        item.path for name in ("note", "frame", "episode") for item in client.list_artifacts(run.info.run_id, name)
    }
    assert found == {"note/3.txt", "frame/3.png", "episode/3.gif"}


@pytest.mark.parametrize("resumed", [True, False])
def test_a_store_in_the_folder_that_leads_out_of_it_is_given_no_files(
    mlflow: Any, resumed: bool, tmp_path: Path, recwarn: Any
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    state = session(MlflowLogger(), run, [1])
    for path in run.rglob("meta.yaml"):
        told = path.read_text().replace((run / "mlruns").as_uri(), out.as_uri())
        path.write_text(told.replace(f" {run / 'mlruns'}", f" {out}"))
    metrics = Metrics(MlflowLogger())
    metrics.start(run, {}, state if resumed else None)
    metrics.log(2, {"loss": 1.0})
    log_media(metrics)
    metrics.finish(0)
    assert not out.exists()
    assert sum("outside of the run folder" in str(warning.message) for warning in recwarn) == 3
