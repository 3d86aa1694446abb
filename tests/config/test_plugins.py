"""Installed packages as plugins: their choices are there, and they are trusted, without a flag."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hsw
from hsw import eval as evaluation
from hsw.config.arguments import allowed_by_flag
from hsw.config.plugins import installed_plugins, trusted_packages
from hsw.config.targets import resolve_target
from hsw.errors import ConfigError
from tests.runs import ROOT, TINY, call, run_dir

ALGORITHM = '''
from hsw.algorithm import PPO


class TheirPPO(PPO):
    """PPO under another name."""
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as pip leaves it: a package theirs_ppo with its conf folder, and what pip notes of it."""
    site = tmp_path / "site"
    package, notes = site / "theirs_ppo", site / "theirs_ppo-1.0.dist-info"
    for folder in (package / "conf" / "algorithm", package / "conf" / "preset", notes):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "learner.py").write_text(ALGORITHM)
    values = (ROOT / "conf" / "algorithm" / "ppo.yaml").read_text()
    values = values.replace("hsw.algorithm.PPO", "theirs_ppo.learner.TheirPPO")
    (package / "conf" / "algorithm" / "their_ppo.yaml").write_text(values)
    (package / "conf" / "algorithm" / "ppo.yaml").write_text("_target_: theirs_ppo.learner.Replaced\n")
    (package / "conf" / "preset" / "their_preset.yaml").write_text("# @package _global_\nalgorithm: {lr: 0.25}\n")
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-ppo\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text("[hsw.plugins]\ntheirs = theirs_ppo\n")
    monkeypatch.syspath_prepend(str(site))
    installed_plugins.cache_clear()
    yield site
    for name in [name for name in sys.modules if name.startswith("theirs_ppo")]:
        del sys.modules[name]
    monkeypatch.undo()
    importlib.invalidate_caches()
    installed_plugins.cache_clear()


def test_an_installed_package_is_found_without_being_imported(site: Path) -> None:
    assert [tuple(plugin) for plugin in installed_plugins()] == [("theirs_ppo", site / "theirs_ppo" / "conf")]
    assert "theirs_ppo" not in sys.modules
    assert trusted_packages() == ("theirs_ppo",)


def test_its_choices_train_and_evaluate_without_flags(site: Path, tmp_path: Path) -> None:
    done = call(*TINY, "algorithm=their_ppo", "preset=their_preset", run_dir(tmp_path / "run"))
    assert done.code == 0, done.err
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "theirs_ppo.learner.TheirPPO" in config
    assert "lr: 0.25" in config
    assert evaluation.evaluate_run(tmp_path / "run", episodes=2)["step"] >= 128
    assert hsw.load(tmp_path / "run").config.algorithm.lr == 0.25
    assert "their_ppo" in call("--help").out


def test_python_finds_its_choices_and_hsws_own_cannot_be_replaced(site: Path) -> None:
    assert hsw.compose(["algorithm=their_ppo"]).algorithm._target_ == "theirs_ppo.learner.TheirPPO"
    assert hsw.compose(["algorithm=ppo"]).algorithm._target_ == "hsw.algorithm.PPO"


def test_a_sweep_finds_its_choices_in_other_processes(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = [*TINY, "algorithm=their_ppo", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "seed=1"]
    done = subprocess.run(
        [sys.executable, "-m", "hsw.train", "--multirun", *sweep, f"hydra.sweep.dir={tmp_path / 'sweep'}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{site}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    status = json.loads((tmp_path / "sweep" / "seed-1" / "status.json").read_text())
    assert status["status"] == "done"


def test_a_package_that_names_no_folder_is_left_out_and_said(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes = site / "theirs_ppo-1.0.dist-info" / "entry_points.txt"
    notes.write_text("[hsw.plugins]\ngone = no_such_package_at_all\nother = theirs_ppo:choices\n")
    importlib.invalidate_caches()
    installed_plugins.cache_clear()
    assert installed_plugins() == ()
    assert "no_such_package_at_all" in caplog.text
    assert "theirs_ppo:choices" in caplog.text
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve_target("theirs_ppo.learner.TheirPPO")


def test_an_entry_point_may_name_another_folder_and_a_package_within_one(site: Path) -> None:
    inner = site / "theirs_ppo" / "rl" / "choices"
    inner.mkdir(parents=True)
    notes = site / "theirs_ppo-1.0.dist-info" / "entry_points.txt"
    notes.write_text("[hsw.plugins]\ninner = theirs_ppo.rl:choices\n")
    importlib.invalidate_caches()
    installed_plugins.cache_clear()
    assert [tuple(plugin) for plugin in installed_plugins()] == [("theirs_ppo.rl", inner)]
    assert "theirs_ppo" not in sys.modules
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve_target("theirs_ppo.learner.TheirPPO")  # no more is trusted than was named


def test_the_flag_allow_is_the_override_allow() -> None:
    assert allowed_by_flag(["--allow", "mine", "seed=1", "--multirun"]) == ["allow=[mine]", "seed=1", "--multirun"]
    assert allowed_by_flag(["--multirun", "--allow=a.b", "--allow", "c"]) == ["--multirun", "allow=[a.b,c]"]
    assert allowed_by_flag(["--config-dir", "x", "--allow", "a", "allow=[b,a]"]) == ["--config-dir", "x", "allow=[a,b]"]
    assert allowed_by_flag(["seed=1"]) == ["seed=1"]
    with pytest.raises(ConfigError, match="names no package"):
        allowed_by_flag(["--allow"])


def test_a_run_trusts_a_package_by_the_flag_on_every_command(tmp_path: Path) -> None:
    assert call(*TINY, "env=gym", "env.id=tests.envs:Counter-v0", "--allow", "tests", run_dir(tmp_path)).code == 0
    assert call(str(tmp_path), "--episodes", "2", main=evaluation.cli).refused(7, "--allow tests")
    assert call(str(tmp_path), "--episodes", "2", "--allow", "tests", main=evaluation.cli).code == 0
