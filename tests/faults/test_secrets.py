"""Keys stay in the environment: no byte that a run writes holds one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsw import secrets
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


TOKEN = "ghq7R2v9Lw0sKx3Zt8"
SECRETS = {
    "GITHUB_TOKEN": TOKEN,
    "HF_TOKEN": TOKEN,
    "AWS_SESSION_TOKEN": TOKEN + "/+=",
    "MY_GITHUB_TOKEN": TOKEN,
    "openaiApiKey": TOKEN,
    "DB_PASSWORD": "correct-horse-battery-9",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AZURE_CREDENTIAL": TOKEN,
}
NO_SECRETS = {
    "TOKENIZERS_PARALLELISM": "some-long-value-12",
    "MONKEY_NAME": "some-long-value-12",
    "KEYBOARD": "some-long-value-12",
    "SSH_KEY": "/home/somebody/.ssh/id_rsa",
    "KEY_FILE": "keys/some/place/token.json",
    "TOKEN_ENDPOINT": "https://vault.example.com/v1/token",
    "KEY_SIZE": "123456789012345",
    "SECRET_NAME": "productiondatabase",
    "SHORT_TOKEN": "abc123",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_known_by_its_variable_and_its_value(name: str, monkeypatch) -> None:
    monkeypatch.setenv(name, SECRETS[name])
    with pytest.raises(ConfigError) as refusal:
        refuse_secrets([f"tag=x{SECRETS[name]}y"])
    assert SECRETS[name] not in str(refusal.value)
    assert secrets.redact(f"a {SECRETS[name]} b") == "a [removed] b"
    assert secrets.redact_all({"a": [SECRETS[name], 1]}) == {"a": ["[removed]", 1]}


@pytest.mark.parametrize("name", NO_SECRETS)
def test_what_is_no_secret_stays(name: str, monkeypatch) -> None:
    monkeypatch.setenv(name, NO_SECRETS[name])
    refuse_secrets([f"env.kwargs.x={NO_SECRETS[name]}"])
    assert secrets.redact(f"a {NO_SECRETS[name]} b") == f"a {NO_SECRETS[name]} b"


KNOWN = ("hf_" + "aB3" * 9, "ghp_" + "aB3" * 9, "sk-proj-" + "aB3" * 9, "AKIA" + "ABCD" * 4)


@pytest.mark.parametrize("value", KNOWN)
def test_a_secret_is_known_by_its_form(value: str) -> None:
    with pytest.raises(ConfigError, match="secret"):
        refuse_secrets([f"tag={value}"])
    assert value not in secrets.redact(f"x={value}, y")


def test_ordinary_words_have_no_form_of_a_secret() -> None:
    text = "task-risk-ask sk-learn hf_small AKIA mask-rcnn-with-a-long-name disk-something-something-else"
    assert secrets.redact(text) == text


def test_no_byte_of_a_run_holds_a_secret_that_an_environment_tells(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    run = tmp_path / "run"
    result = call(*TINY, "env.id=tests.envs:TellsSecret-v0", run_dir(run))
    assert result.code == 3, result.err
    assert "[removed]" in result.err
    assert TOKEN not in result.err + result.out
    assert holding(tmp_path, TOKEN) == []
