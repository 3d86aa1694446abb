"""python -m hsw.export: what is written acts as the run's own policy does, without hsw and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml

import hsw
from hsw import export
from hsw.env.actions import ActionCast
from hsw.exporting import formats
from tests.runs import ROOT, call, run_dir, tiny_run

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
    "choices": (*tiny_run("ppo"), "env.id=tests.envs:Masked-v0", "+env.kwargs.choices=[2,3]", "env.action_mask=info"),
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


def test_an_exported_policy_plays_without_torch_and_hsw_as_the_run_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    run = trained("ppo", tmp_path)
    exported(run, "--no-video", "--observations", "50")
    script = [str(ROOT / "examples" / "play_exported.py"), str(tmp_path / "out"), "4"]
    forbid = "import sys, runpy; sys.modules.update(torch=None, hsw=None); sys.argv = sys.argv[1:]"
    command = [sys.executable, "-c", f"{forbid}; runpy.run_path(sys.argv[0], run_name='__main__')", *script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returns"] == played(run, 4)


def test_the_exported_policy_of_an_environment_of_ones_own_plays_in_the_folder_of_its_module(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    (tmp_path / "mine.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('Poles-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)\n"
    )
    exported(trained("ppo", tmp_path), "--no-video", "--observations", "50")
    told = json.loads((tmp_path / "out" / "policy.json").read_text())
    told["env"] = {"id": "mine:Poles-v0", "kwargs": {}}
    (tmp_path / "out" / "policy.json").write_text(json.dumps(told))
    script = [sys.executable, str(ROOT / "examples" / "play_exported.py"), "out", "2"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["returns"]) <= 20


def played(run: Path, episodes: int) -> list[float]:
    """What the run's own policy gets in the script's episodes."""
    policy, env, returns = hsw.load(run), gym.make("CartPole-v1"), []
    for episode in range(episodes):
        (obs, _), total, done = env.reset(seed=10_000 + episode), 0.0, False
        policy.reset()
        while not done:
            obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


@pytest.mark.slow
def test_an_exported_policy_plays_in_an_environment_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    run = trained("ppo", tmp_path)
    exported(run, "--no-video", "--observations", "50")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    packages = ["-c", str(ROOT / "constraints.txt"), "numpy", "onnxruntime", "gymnasium"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    script = [python, str(ROOT / "examples" / "play_exported.py"), str(tmp_path / "out"), "4"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, env={}, check=True)
    assert json.loads(done.stdout)["returns"] == played(run, 4)


def test_a_policy_that_acts_otherwise_once_exported_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    run = trained("sac", tmp_path)
    tensors = ActionCast.tensors
    monkeypatch.setattr(ActionCast, "tensors", lambda self, actions: tensors(self, actions) * 0.999)
    arguments = (str(run), "--out", str(tmp_path / "out"), "--allow", "tests", "--format", "pt2")
    assert call(*arguments, main=export.cli).refused(1, "the exported policy acts otherwise than the run's own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("ppo", tmp_path_factory.mktemp("export"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "{run}/policy"), "is within the run's folder, which is left as it is"),
        (("--out", "{full}"), "holds something already"),
        (("--out", "{file}"), "is no folder"),
        (("--out", "{new}", "--episodes", "0"), "--episodes=0 must be at least 1"),
        (("--out", "{new}", "--push", "mine"), "--push=mine must be <user>/<name>"),
        (("--out", "{new}", "--checkpoint", "7"), "there is no checkpoint of step 7"),
        ((), "the following arguments are required: --out"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    arguments: tuple[str, ...], sentence: str, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    places = {"run": run, **{name: tmp_path / name for name in ("full", "file", "new")}}
    named = [argument.format(**places) for argument in arguments]
    assert call(str(run), *named, main=export.cli).refused(2, sentence)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_a_format_whose_packages_are_missing_names_the_extra(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(formats.NEEDED, "onnx", ("no_such_package",))
    refused = call(str(run), "--out", str(tmp_path / "out"), main=export.cli)
    assert refused.refused(2, "needs no_such_package; pip install 'hsw[export]'")


def test_a_run_with_a_secret_in_its_config_is_not_handed_on(tmp_path: Path, monkeypatch: Any) -> None:
    run = trained("ppo", tmp_path)
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-0f-mine-aa11")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("tag: ", "tag: s3cr3t-0f-mine-aa11 #"))
    refused = call(str(run), "--out", str(tmp_path / "out"), "--format", "pt2", main=export.cli)
    assert refused.refused(7, "tag has the value of a secret")
    assert not (tmp_path / "out").exists()
