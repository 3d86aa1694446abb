from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hsw.run import provenance
from hsw.run.provenance import hide_secrets, record_session, versions
from tests.runs import ROOT, call, patience, run_dir, tiny_run

SECRETS = ("hf_" + "a1B2" * 8, "ghp_" + "Z9" * 18, "sk-" + "proj-" + "x" * 24, "AKIA" + "ABCD1234EFGH5678")


def git(folder: Path, *words: str) -> None:
    person = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")
    subprocess.run(["git", "-C", str(folder), *person, *words], check=True, capture_output=True)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: Any) -> Path:
    """The working folder, within a repository of the user's with one commit."""
    repository = tmp_path / "mine"
    (repository / "inner").mkdir(parents=True)
    (repository / "model.py").write_text("width = 8\n")
    git(repository, "init")
    git(repository, "add", ".")
    git(repository, "commit", "-m", "first")
    monkeypatch.chdir(repository / "inner")
    return repository


def sessions(folder: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((folder / "versions.json").read_text())
    return told


def recorded(folder: Path, resume: bool = False) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    record_session(folder, resume)
    return sessions(folder)[-1]


def test_versions_name_packages_and_the_command(tmp_path: Path) -> None:
    written = recorded(tmp_path)
    assert {"began", "python", "torch", "gymnasium", "command"} <= set(written)
    assert "no-such-package" not in versions(("no-such-package",))


def test_the_users_repository_is_told_of_with_what_is_changed_in_it(users: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    clean = recorded(run)["repository"]
    assert (clean["root"], clean["changed"], len(clean["commit"])) == (str(users), False, 40)
    assert not list(run.glob("*.diff"))
    (users / "model.py").write_text("width = 16\n")
    (users / "new.py").write_text("")
    changed = recorded(run)["repository"]
    assert (changed["commit"], changed["changed"], changed["untracked"]) == (clean["commit"], True, ["new.py"])
    diff = (run / changed["diff"]).read_text()
    assert "-width = 8" in diff
    assert "+width = 16" in diff


def test_sessions_are_a_list_and_an_unchanged_diff_is_kept_once(users: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (users / "model.py").write_text("width = 16\n")
    recorded(run)
    recorded(run, resume=True)
    (users / "model.py").write_text("width = 32\n")
    recorded(run, resume=True)
    assert [one["repository"]["diff"] for one in sessions(run)] == ["git-1.diff", "git-1.diff", "git-3.diff"]
    recorded(run)  # another run, in the place of one that left no checkpoint
    assert len(sessions(run)) == 1
    assert [path.name for path in run.glob("*.diff")] == ["git-1.diff"]


def test_what_0_1_0_told_of_its_last_session_becomes_the_first(tmp_path: Path) -> None:
    old = json.loads((ROOT / "tests/data/runs-0.1.0/daac/versions.json").read_text())
    (tmp_path / "versions.json").write_text(json.dumps(old))
    recorded(tmp_path, resume=True)
    first, second = sessions(tmp_path)
    assert first == old
    assert second["command"] == sys.argv


@pytest.mark.parametrize("damage", ["{", "3", "[1]", None])
def test_a_damaged_file_is_begun_anew(damage: str | None, tmp_path: Path) -> None:
    if damage:
        (tmp_path / "versions.json").write_text(damage)
    recorded(tmp_path, resume=True)
    assert len(sessions(tmp_path)) == 1


@pytest.mark.parametrize("secret", SECRETS)
def test_keys_are_not_in_the_diff(secret: str, users: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "plain-words-that-are-secret")
    (users / "model.py").write_text(
        f"key = {secret!r}\nother = 'plain-words-that-are-secret'\npassword: 'hunter2hunter2'\n"
        "remote = 'https://me:word@host/x'\nwidth = 16\nexport OTHER_KEY=abcdefgh12345678\n"
    )
    run = tmp_path / "run"
    text = (run / recorded(run)["repository"]["diff"]).read_text()
    assert not [word for word in (secret, "plain-words", "hunter2", "me:word", "abcdefgh") if word in text]
    assert "+width = 16" in text
    assert "https://[removed]@host" in text


def test_code_about_tokens_is_no_secret() -> None:
    code = "tokens = tokenizer.encode(text)\nmax_token_length = 4096\ntask-based skill = mask_of(x)\n"
    assert hide_secrets(code) == code


def test_a_large_diff_is_cut(users: Path, tmp_path: Path) -> None:
    (users / "model.py").write_text("x = 1\n" * 400_000)
    run = tmp_path / "run"
    path = run / recorded(run)["repository"]["diff"]
    assert path.stat().st_size < 257 * 1024
    assert path.read_text().endswith("[cut off after 262144 bytes]\n")


def test_neither_no_git_nor_no_repository_nor_a_lost_folder_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "repository" not in recorded(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert "repository" not in recorded(tmp_path / "b")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git" not in recorded(tmp_path / "c")


def test_a_git_that_does_not_answer_is_given_up(users: Path, tmp_path: Path, monkeypatch: Any) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 30 & sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "_PATIENCE", 0.2)
    begin = time.monotonic()
    assert "repository" not in recorded(tmp_path / "run")
    assert time.monotonic() - begin < patience(1)


def test_a_resumed_run_tells_of_each_session_and_its_command(tmp_path: Path) -> None:
    assert call(*tiny_run("ppo"), run_dir(tmp_path)).code == 0
    assert call(f"resume={tmp_path}", "num_train_steps=200").code == 0
    first, second = sessions(tmp_path)
    assert "num_train_steps=128" in first["command"]
    assert f"resume={tmp_path}" in second["command"]


def test_a_machine_that_has_no_thread_to_spare_tells_nothing_of_the_repository(monkeypatch: Any) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert provenance._repository(Path(__file__).parent, time.monotonic() + 5) is None
