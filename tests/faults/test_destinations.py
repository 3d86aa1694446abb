"""Where a stored config sends and writes: into its own folder, and elsewhere only if the command line says so too."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hsw.config.places import check_places, places_outside, words_to_allow
from hsw.errors import ConfigError, CorruptError
from hsw.run.folder import RunFolder
from hsw.run.services import Run
from tests.runs import ROOT, TINY, call, finish, newest, rows, run_dir, start, wait_for

URI = "http://evil.example:5000"
MLFLOW = {"_target_": "hsw.run.mlflow_logger.MlflowLogger", "experiment": "hsw", "name": None, "tags": []}
WANDB = {"_target_": "hsw.run.logger.WandbLogger", "project": "hsw", "entity": None, "mode": "offline"}
LINES = {"_target_": "lab.watch.Lines", "name": "lines.txt"}
STOP = {"_target_": "lab.watch.StopAfter", "iterations": 3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert call(*TINY, "num_train_steps=32", run_dir(folder)).code == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_ENTITY", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "outside"))
    return Path(shutil.copytree(finished, tmp_path / "run"))


def store(run: Path, **values: Any) -> None:
    config = OmegaConf.load(run / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    OmegaConf.save(config, run / "config.yaml")


OUTSIDE = {
    "a server": ({"logger": {**MLFLOW, "tracking_uri": URI}}, URI),
    "a server in a word": ({"logger": {**MLFLOW, "tracking_uri": "databricks"}}, "tracking_uri:databricks"),
    "a folder": ({"logger": {**MLFLOW, "tracking_uri": "/tmp/elsewhere"}}, "/tmp/elsewhere"),
    "the URL of a folder": ({"logger": {**MLFLOW, "tracking_uri": "file:///tmp/elsewhere"}}, "file:///tmp/elsewhere"),
    "a database": ({"logger": {**MLFLOW, "tracking_uri": "sqlite:///a.db"}}, "sqlite:///a.db"),
    "a file of another machine": ({"logger": {**MLFLOW, "tracking_uri": "file://host/x"}}, "file://host/x"),
    "one of several": ({"logger": {"a": {"_target_": "hsw.run.csv_logger.CsvLogger"},
                                   "b": {**MLFLOW, "tracking_uri": URI}}}, URI),
    "an account": ({"logger": {**WANDB, "entity": "evil"}}, "entity:evil"),
    "within another": ({"logger": {**LINES, "name": {**MLFLOW, "tracking_uri": URI}}}, URI),
    "the path of a logger of a package": ({"logger": {**LINES, "name": "/dev/null"}}, "/dev/null"),
    "above": ({"logger": {**LINES, "name": "../../.bashrc"}}, "../../.bashrc"),
    "at home": ({"logger": {**LINES, "name": "~/.bashrc"}}, "~/.bashrc"),
    "in a list": ({"logger": {**LINES, "name": ["a", URI]}}, URI),
    "a callback's": ({"callbacks": {"stop": {**STOP, "iterations": "s3://bucket/x"}}}, "s3://bucket/x"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_place_outside_is_one_unless_the_command_line_names_it(name: str, run: Path) -> None:
    values, word = OUTSIDE[name]
    with pytest.raises(ConfigError, match="leads out of the run folder"):
        check_places(values, ["lab"], run)
    check_places(values, ["lab", word], run)


@pytest.mark.parametrize("name", ["a server", "the path of a logger of a package"])
def test_a_place_outside_that_only_the_folder_names_is_refused_with_what_would_trust_it(name: str, run: Path) -> None:
    values, word = OUTSIDE[name]
    store(run, **values)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused = call(f"resume={run}", "num_train_steps=64", "allow=[lab]")
    assert refused.refused(7, "leads out of the run folder", word)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (shown,) = [part for part in shlex.split(refused.sentence.partition("say where; ")[2]) if part.startswith("allow=")]
    again = call(f"resume={run}", "num_train_steps=64", shown)
    assert again.code == 0, again.err


def test_the_command_line_takes_another_logger_and_no_place_is_asked_for(run: Path) -> None:
    store(run, logger={**MLFLOW, "tracking_uri": URI})
    assert call(f"resume={run}", "num_train_steps=64", "logger=local").code == 0
    assert "mlflow" not in (run / "config.yaml").read_text()


WITHIN: list[dict[str, Any]] = [
    {"tracking_uri": None},
    {"tracking_uri": "{run}/mlruns"},
    {"tracking_uri": "file://{run}/mlruns"},
    {"tracking_uri": "{run}/a/../mlruns"},
]


@pytest.mark.parametrize("options", WITHIN)
def test_what_stays_in_the_folder_needs_no_word(options: dict[str, Any], tmp_path: Path) -> None:
    filled = {key: value and value.format(run=tmp_path) for key, value in options.items()}
    check_places({"logger": {**MLFLOW, **filled}}, [], tmp_path)


@pytest.mark.parametrize(
    "path", ["{run}/../x", "file://{run}/../x", "{run}-2/x", "{run}/link/x", "file://{run}/%2e%2e/x"]
)
def test_what_only_looks_as_if_it_stayed_is_outside(path: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="leads out"):
        check_places({"logger": {**MLFLOW, "tracking_uri": path.format(run=run)}}, [], run)


def test_what_the_environment_says_too_needs_no_word(monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    monkeypatch.setenv("WANDB_ENTITY", "us")
    assert not list(places_outside({"logger": {"a": {**MLFLOW, "tracking_uri": URI}, "b": {**WANDB, "entity": "us"}}}))


def test_a_stored_logger_does_not_go_online_where_the_environment_says_offline(monkeypatch: Any) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert not list(places_outside({"logger": {**WANDB, "mode": "online"}}))
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert words_to_allow({"logger": {**WANDB, "mode": "online"}}, []) == ["mode:online"]


def test_a_place_is_no_package_and_a_package_no_place(run: Path) -> None:
    store(run, logger={**MLFLOW, "tracking_uri": "lab"}, callbacks={"stop": STOP})
    assert call(f"resume={run}", "num_train_steps=64", "allow=[lab]").refused(7, "tracking_uri:lab")
    assert call(f"resume={run}", "num_train_steps=64", 'allow=["tracking_uri:lab"]').refused(7, "lab.watch.StopAfter")
    assert call(f"resume={run}", "num_train_steps=64", "--allow", "lab", 'allow=["tracking_uri:lab"]').code == 0


def test_a_config_that_runs_again_leads_nowhere_that_is_not_typed(run: Path, tmp_path: Path) -> None:
    choices = json.loads((run / "choices.json").read_text())
    choices["overrides"] += ["logger=mlflow", f"logger.tracking_uri={URI}"]
    (run / "choices.json").write_text(json.dumps(choices))
    again = (f"from={run}", run_dir(tmp_path / "again"))
    assert call(*again).refused(2, "leads out of the run folder", URI)
    assert not (tmp_path / "again").exists()
    assert call(*again, f"logger.tracking_uri={URI}").code == 0
    for number, typed in enumerate((f'allow=["{URI}"]', "logger=local")):
        assert call(f"from={run}", run_dir(tmp_path / str(number)), typed).code == 0


STOPPED = [
    ("env.id=tests.envs:Counter-v0",),
    ("logger=lines", "allow=[lab]", "logger.name=../lines.txt", "--config-dir", str(ROOT / "tests/outside/lab/conf")),
]


@pytest.mark.parametrize("arguments", STOPPED)
def test_what_a_stopped_run_says_can_be_pasted(arguments: Any, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder, log, stops = tmp_path / "other", Run.log, iter([signal.SIGTERM])

    def then_stop(self: Run, *args: Any) -> None:
        log(self, *args)
        for signum in stops:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(Run, "log", then_stop)
    stopped = call(*TINY, *arguments, run_dir(folder))
    assert stopped.code == 143, stopped.err
    command = shlex.split(stopped.sentence.partition("continue with: ")[2])
    assert command[:3] == ["python", "-m", "hsw.train"]
    going = call(*command[3:], "quiet=false")
    assert going.code == 0, going.err
    assert newest(folder)["step"] >= 128
    (told,) = (line for line in going.err.splitlines() if line.startswith("resume"))
    assert shlex.split(told)[-len(command[3:]) - 1 : -1] == command[3:]  # the last lines say as much


@pytest.mark.slow
def test_a_pasted_command_goes_on_with_a_stopped_process(tmp_path: Path) -> None:
    process = start(*TINY, "env.id=tests.envs:Counter-v0", "num_train_steps=1000000", run_dir(tmp_path))
    wait_for(lambda: process.poll() is not None or rows(tmp_path))
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    command = shlex.split(stopped.sentence.partition("continue with: ")[2])
    step = newest(tmp_path)["step"]
    assert finish(start(*command[3:], f"num_train_steps={step + 64}")).code == 0
    assert newest(tmp_path)["step"] >= step + 64


# -- what the libraries of loggers would take from the folder ----------------------------------------------------------

PLANTED: dict[str, Any] = {
    "wandb/settings": "[default]\nbase_url = http://evil.example\n",
    ".wandb": None,
    "wandb/latest-run": "..",
    "wandb/run-1/files": "out",
    "wandb/offline-run-1/logs/debug.log": "out",
    "tensorboard/events.out.tfevents.1": "out",
    "tensorboard/a/b/c": "out",
    "mlruns/0/meta.yaml": "out",
    "mlruns/0/pipe": os.mkfifo,
    "mlruns/0/a": os.link,
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_a_loggers_library_would_follow_or_obey_is_refused(name: str, tmp_path: Path) -> None:
    path, planted, out = tmp_path / "run" / name, PLANTED[name], tmp_path / "out"
    path.parent.mkdir(parents=True)
    out.write_text("precious")
    if planted is None:
        path.mkdir()
    elif planted is os.mkfifo:
        os.mkfifo(path)
    elif planted is os.link:
        os.link(out, path)
    elif "=" in planted:
        path.write_text(planted)
    else:
        path.symlink_to(out if planted == "out" else tmp_path / "run" / planted)
    with pytest.raises(CorruptError, match=path.name):
        RunFolder(tmp_path / "run")
    assert out.read_text() == "precious"


def test_the_links_that_wandb_makes_are_its_own(tmp_path: Path) -> None:
    logs = tmp_path / "wandb" / "offline-run-1-a" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to("/tmp/of-wandbs-service.log")
    (tmp_path / "wandb" / "latest-run").symlink_to("offline-run-1-a")
    (tmp_path / "wandb" / "debug.log").symlink_to("offline-run-1-a/logs/debug.log")
    RunFolder(tmp_path).close()


def test_folders_within_folders_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "/".join("a" * 200)).mkdir(parents=True)
    with pytest.raises(CorruptError, match="nested deeper"):
        RunFolder(tmp_path)


def test_git_obeys_no_config_in_a_run_folder(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/exploded\n")
    hook.chmod(0o755)
    (run / ".gitattributes").write_text("* filter=x\n")
    own = ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]
    obeyed = (["config", "core.fsmonitor", str(hook)], ["config", "filter.x.clean", str(hook)])
    for words in (["init", "-q"], ["add", "train.log", ".gitattributes"], own, *obeyed):
        subprocess.run(["git", *words], cwd=run, check=True)
    (run / "train.log").write_text("changed")
    monkeypatch.chdir(run)
    resumed = call("resume=.", "num_train_steps=64")
    assert resumed.code == 0, resumed.err
    assert not (tmp_path / "exploded").exists()
