"""The real wandb without a network and without its service: the run ends well, and its own metrics are whole."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsw.run.logger import WandbLogger
from hsw.run.metrics import Metrics
from tests.run.test_logger import log_media
from tests.runs import TINY, finish, patience, rows, run_dir, start, wait_for
from tests.wandb_server import KEY

pytestmark = pytest.mark.slow


def services(pid: int) -> list[int]:
    """wandb's service processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"wandb-core") and str(pid).encode() in words:
                found.append(int(path.parent.name))
    return found


def test_an_unreachable_server_is_given_up_within_the_cap(tmp_path: Path) -> None:
    online = ("logger=wandb", "logger.mode=online", "logger.init_timeout=1", "logger.finish_timeout=2")
    # A proxy that nobody serves: no byte leaves the machine.
    env = {"WANDB_API_KEY": KEY, "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    begin = time.monotonic()
    result = finish(start(*TINY, *online, run_dir(tmp_path), env=env), timeout=90)
    assert result.code == 0, result.err
    assert time.monotonic() - begin < patience(59)
    assert "this run is logged offline" in (tmp_path / "train.log").read_text()
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    assert rows(tmp_path)[-1]["step"] >= 128
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_killed_service_does_not_stop_the_run(tmp_path: Path) -> None:
    offline = ("logger=wandb", "logger.mode=offline", "logger.finish_timeout=2", "num_train_steps=3000")
    process = start(*TINY, *offline, run_dir(tmp_path))
    wait_for(lambda: process.poll() is not None or len(rows(tmp_path)) > 5)
    (service,) = services(process.pid)
    os.kill(service, signal.SIGKILL)
    result = finish(process, timeout=90)
    assert result.code == 0, result.err
    assert rows(tmp_path)[-1]["step"] >= 3000


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_costs_each_job_of_a_sweep_its_cap(tmp_path: Path, silent_server: str) -> None:
    online = ("logger=wandb", "logger.mode=online", "logger.init_timeout=2", "logger.finish_timeout=2")
    env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": silent_server}
    begin = time.monotonic()
    sweep = ("--multirun", *TINY, *online, "seed=1,2", f"hydra.sweep.dir={tmp_path}")
    result = finish(start(*sweep, env=env), timeout=120)
    assert result.code == 0, result.err
    assert time.monotonic() - begin < patience(29)  # of which the caps are 8
    for job in ("seed-1", "seed-2"):
        assert list((tmp_path / job / "wandb").glob("offline-run-*"))
        assert rows(tmp_path / job)[-1]["step"] >= 128


def test_a_service_killed_in_one_job_of_a_sweep_is_no_matter_to_the_next(tmp_path: Path) -> None:
    offline = ("logger=wandb", "logger.mode=offline", "logger.finish_timeout=2", "num_train_steps=3000", "seed=1,2")
    process = start("--multirun", *TINY, *offline, f"hydra.sweep.dir={tmp_path}")
    wait_for(lambda: process.poll() is not None or len(rows(tmp_path / "seed-1")) > 5)
    (service,) = services(process.pid)
    os.kill(service, signal.SIGKILL)
    result = finish(process, timeout=90)
    assert result.code == 0, result.err
    for job in ("seed-1", "seed-2"):
        assert rows(tmp_path / job)[-1]["step"] >= 3000
    assert list((tmp_path / "seed-2" / "wandb").glob("offline-run-*/*.wandb"))


def test_texts_histograms_images_and_videos_are_kept_offline(tmp_path: Path) -> None:
    metrics = Metrics({"wandb": WandbLogger(mode="offline")})
    metrics.start(tmp_path, {}, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing is refused
        log_media(metrics)
    metrics.finish(0)
    media = {path.suffix for path in (tmp_path / "wandb").glob("offline-run-*/files/media/**/*") if path.is_file()}
    assert media == {".html", ".png", ".gif"}
