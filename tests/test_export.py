"""python -m hsw.export: what is written acts as the run's own policy does, without hsw and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsw import export
from hsw.exporting import formats
from tests.runs import call, run_dir, tiny_run

KINDS = {
    "ppo": (*tiny_run("ppo"), "env.normalize_obs=true"),
    "daac": tiny_run("daac"),
    "a2c": tiny_run("a2c"),
    "sac": (*tiny_run("sac"), "network.normalize_obs=true"),
    "td3": tiny_run("td3"),
    "her_sac": tiny_run("her_sac"),
    "dqn": (*tiny_run("dqn"), "network.dueling=true"),
    "impala": (*tiny_run("impala"), "network.lstm_size=8"),
    "recurrent_ppo": tiny_run("recurrent_ppo"),
    "choices": (*tiny_run("ppo"), "env.id=tests.envs:Choices-v0"),
    "frames": (*tiny_run("ppo"), "env.frame_stack=3"),
}
FAST = {("sac", "pt2"), ("impala", "pt2"), ("ppo", "onnx")}
CASES = [
    pytest.param(kind, form, marks=() if (kind, form) in FAST else pytest.mark.slow)
    for kind in KINDS
    for form in ("onnx", "pt2")
]


def trained(kind: str, folder: Path) -> Path:
    result = call(*KINDS[kind], run_dir(folder / "run"))
    assert result.code == 0, result.err
    return folder / "run"


def exported(run: Path, *arguments: str) -> dict[str, Any]:
    result = call(
        str(run), "--out", str(run.parent / "out"), "--allow", "tests", "--episodes", "2", *arguments, main=export.cli
    )
    assert result.code == 0, result.err
    told: dict[str, Any] = json.loads(result.out.splitlines()[-1])
    return told


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_what_is_exported_acts_as_the_runs_own_policy_does(kind: str, form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    run = trained(kind, tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    told = exported(run, "--format", form, "--no-video", "--observations", "200")
    assert told["observations"] >= 200
    assert told["max_difference"] <= 1e-5
    assert told["equal_actions"] + told["close_calls"] == told["observations"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    out = tmp_path / "out"
    assert json.loads((out / "parity.json").read_text())["max_difference"] == told["max_difference"]
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert head["model-index"][0]["results"][0]["metrics"][0]["type"] == "mean_reward"
    names = {path.name for path in out.iterdir()}
    assert names == {
        *(f"{n}.json" for n in ("policy", "parity", "results")),
        "README.md",
        "config.yaml",
        "model.safetensors",
        formats.FILES[form],
    }
