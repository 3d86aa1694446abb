"""Keys stay in the environment: no byte that a run writes holds one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsw.config.files import refuse_secrets
from hsw.errors import ConfigError
from tests.runs import TINY, call, finish, newest, run_dir, start
from tests.wandb_server import KEY


def holding(folder: Path, secret: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_an_api_key_reaches_no_file_and_wandb_keeps_its_id_on_resume(tmp_path: Path) -> None:
    run = tmp_path / "run"
    wandb = ("logger=wandb", "logger.mode=offline")
    env = {"WANDB_API_KEY": KEY, "HOME": str(tmp_path / "home"), "OTHER_SECRET": KEY[::-1]}
    first = finish(start(*TINY, *wandb, run_dir(run), env=env))
    assert first.code == 0, first.err
    second = finish(start(f"resume={run}", "num_train_steps=200", env=env))
    assert second.code == 0, second.err
    for secret in (KEY, KEY[::-1]):
        assert holding(tmp_path, secret) == []
        assert all(secret not in text for result in (first, second) for text in (result.out, result.err))
    ids = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}
    assert ids == {newest(run)["logger"]["copies"]["wandb"]["id"]}


@pytest.mark.parametrize(
    "argument",
    ["wandb.api_key=1", "+logger.apiKey=1", "PASSWORD=1", "env.kwargs.access_token=1", f"tag={KEY}", f"+x=[a,{KEY}]"],
)
def test_secrets_in_arguments_are_refused(argument: str, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(ConfigError) as refusal:
        refuse_secrets([argument])
    assert KEY not in str(refusal.value)


def test_a_secret_that_a_config_reads_from_the_environment_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert call(*TINY, "tag='${oc.env:WANDB_API_KEY}'", run_dir(tmp_path / "run")).refused(2, "tag", "secret")
    assert holding(tmp_path, KEY) == []


def test_ordinary_arguments_pass(monkeypatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "short")
    monkeypatch.setenv("MY_PASSWORD", "")
    refuse_secrets(["seed=1", "env=cartpole", "--multirun", "algorithm.lr=1e-3"])
