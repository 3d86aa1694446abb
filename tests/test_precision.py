"""Runs in bfloat16: their folders evaluate, export and verify, and keep what they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import hsw
from hsw import device as devices
from hsw.config.defaults import fill_in
from hsw.config.resolved import identity
from hsw.errors import ConfigError
from hsw.network.forward import is_adapted

SMALL = ["storage.num_steps=16", "num_train_steps=200", "quiet=true", "eval_episodes=1", "device=cpu"]


def test_a_run_in_bf16_is_another_run_whose_state_is_float32(tmp_path: Path) -> None:
    plain = hsw.make(hsw.compose(SMALL), tmp_path / "plain")
    agent = hsw.make(hsw.compose([*SMALL, "precision=bf16"]), tmp_path / "half")
    for one in (plain, agent):
        one.train()
    state = agent.state_dict()
    for name, here in plain.policy.state_dict().items():
        assert state["policy"][name].dtype == torch.float32
        assert not torch.equal(here, state["policy"][name]) or not here.any(), name
    trained = hsw.load(tmp_path / "half")
    assert is_adapted(trained.policy.encoder)
    assert trained.evaluate(1)["mean"] == agent.last_scores["mean"]


def test_neither_key_is_part_of_what_an_older_run_is() -> None:
    now = hsw.compose(SMALL)
    older = OmegaConf.to_container(now, resolve=False)
    for key in ("precision", "compile", "profile"):
        del older[key]  # type: ignore[arg-type, union-attr]
    fill_in(older)  # type: ignore[arg-type]
    assert (older["precision"], older["compile"], older["profile"]) == ("fp32", False, False)  # type: ignore[call-overload, index]
    assert not {"precision", "compile", "profile"} & identity(now).keys()
    assert identity(hsw.compose([*SMALL, "precision=bf16", "compile=true"])).items() >= {
        ("precision", "bf16"),
        ("compile", True),
    }


def test_a_device_without_bf16_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    with pytest.raises(ConfigError, match="cpu has no bfloat16"):
        hsw.make(hsw.compose([*SMALL, "precision=bf16"]))


@pytest.mark.slow
def test_every_command_takes_its_folder_and_a_resume_keeps_its_precision(tmp_path: Path) -> None:
    def run(*command: object, code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stderr

    folder = tmp_path / "run"
    common = [*SMALL, "checkpoint_interval=100", "checkpoint_keep=5", f"hydra.run.dir={folder}"]
    run("hsw.train", "precision=bf16", *common)
    run("hsw.verify", folder)
    run("hsw.replay", folder, "--step", 128, "--update")
    run("hsw.export", folder, "--out", tmp_path / "out", "--episodes", 1, "--observations", 20, "--no-video")
    told = run("hsw.train", f"resume={folder}", "precision=fp32", code=2)
    assert told.startswith("hsw: a resumed run keeps its precision; it may change num_train_steps")
    assert "compile" in run("hsw.train", f"resume={folder}", "compile=true", code=2)
    run("hsw.train", f"resume={folder}", "num_train_steps=300")
