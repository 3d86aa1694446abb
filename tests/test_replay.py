"""A run at any of its steps: as it was there, what it learnt from next, and which layer made its first NaN."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hsw import replay
from hsw.rerun.replaying import moment, record_update
from hsw.run.checkpoint import read_meta, read_state
from tests.runs import agent_of, call, differences, rows, run_dir, tiny_run, train_on
from tests.test_resume import nth, stored_and_loaded, when

KEPT = ("checkpoint_interval=50", "checkpoint_keep=10", "eval_interval=60")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs, each trained once; nothing is written into them."""
    folders: dict[str, Path] = {}

    def folder(recipe: str) -> Path:
        if recipe not in folders:
            folders[recipe] = tmp_path_factory.mktemp(recipe)
            result = call(*tiny_run(recipe), *KEPT, run_dir(folders[recipe]))
            assert result.code == 0, result.err
        return folders[recipe]

    return folder


def replayed(folder: Path, *arguments: object) -> Any:
    return call(str(folder), "--allow", "tests", *map(str, arguments), main=replay.cli)


@pytest.mark.parametrize(
    "recipe", ["ppo", *(pytest.param(one, marks=pytest.mark.slow) for one in ("daac", "sac", "her_sac"))]
)
def test_the_state_at_random_steps_is_that_of_a_run_stopped_there(recipe: str, made: Any, tmp_path: Path) -> None:
    folder = made(recipe)
    steps = sorted(4 * row for row in random.Random(recipe).sample(range(1, 30), 5))  # each in a row of its own
    stopped = []
    with agent_of(*tiny_run(recipe), *KEPT, folder=tmp_path / "stopped") as agent:
        for step in steps:
            when(agent, agent, "_collect_row", nth(1, lambda _, step=step: agent.step >= step))
            agent.services.signals.requested = None
            state = train_on(agent, 128)
            assert state is not None
            stopped.append(stored_and_loaded(state, tmp_path / f"state-{step}"))
    for step, state in zip(steps, stopped, strict=True):
        with moment(folder, step, before_update=True, allow=["tests"]) as here:
            assert differences(state, stored_and_loaded(here.agent.state_dict(), tmp_path / "replayed")) == []


@pytest.mark.parametrize("recipe", ["ppo", pytest.param("sac", marks=pytest.mark.slow)])
def test_the_state_at_a_checkpoints_step_is_the_checkpoint(recipe: str, made: Any, tmp_path: Path) -> None:
    shutil.copytree(made(recipe), tmp_path / "run")
    path = sorted((tmp_path / "run" / "checkpoints").glob("0*"))[1]
    step, (saved, _) = read_meta(path)["step"], read_state(path)
    saved.pop("logger")
    with moment(tmp_path / "run", step, allow=["tests"]) as here:
        assert here.begun is not None
        assert here.begun.step == step
        assert differences(saved, stored_and_loaded(here.agent.state_dict(), tmp_path / "kept")) == []
    tensors = load_file(path / "tensors.safetensors")
    shutil.rmtree(path)
    result = replayed(tmp_path / "run", "--step", step, "--out", tmp_path / "state.safetensors")
    assert result.code == 0, result.err
    out = load_file(tmp_path / "state.safetensors")
    assert tensors.keys() == {name for name in out if "/rows/" not in name}
    assert all(torch.equal(tensor, out[name]) for name, tensor in tensors.items())
    assert json.loads((tmp_path / "state.json").read_text())["step"] == step
    assert json.loads(result.out)["where"] == "between two iterations"


def test_the_summary_tells_where_the_step_is(made: Any) -> None:
    told = json.loads(replayed(made("ppo"), "--step", 41).out)
    assert (told["step"], told["asked"], told["from"]) == (42, 41, "the start")
    assert "within the iteration that began at step" in told["where"]
    assert "step 41 lies within a row of 2 environments" in told["where"]


@pytest.mark.parametrize("recipe", ["ppo", pytest.param("sac", marks=pytest.mark.slow)])
def test_the_update_that_followed_is_that_of_the_run(recipe: str, made: Any, tmp_path: Path) -> None:
    """Its figures are those that the run logged, and its gradients those of the loss at its minibatch."""
    folder = made(recipe)
    row = next(row for row in rows(folder)[1:] if any(name.startswith("learn/") for name in row))
    out = tmp_path / "state.safetensors"
    result = replayed(folder, "--step", row["step"], "--update", "--out", out)
    assert result.code == 0, result.err
    told, saved = json.loads(result.out)["update"], load_file(tmp_path / "state-update.safetensors")
    assert {"batch/obs", "batch/actions"} <= set(saved)
    norms = {name.removeprefix("gradients/"): float(one.norm()) for name, one in saved.items() if "gradients/" in name}
    assert norms == pytest.approx(told["gradient_norms"])
    if recipe == "ppo":
        steps = [step["gradient_norm"] for step in told["optimizer_steps"]]
        assert sum(steps) / len(steps) == pytest.approx(row["learn/grad_norm"], rel=1e-5)
        assert told["step"] == row["step"]
    else:
        assert {"algorithm.log_alpha", "policy.actor.layers.0.weight"} <= set(norms)


@pytest.mark.slow
def test_a_later_minibatch_has_gradients_of_its_own(made: Any) -> None:
    with moment(made("ppo"), 20) as here:
        first, _ = record_update(here.agent)
    with moment(made("ppo"), 20) as here:
        other, told = record_update(here.agent, 3)
        assert told["minibatch"] == 3
        assert vars(here.agent.storage)["on_batch"] == here.agent._on_batch
    assert not torch.equal(first["batch/actions"], other["batch/actions"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--step", "999999"), 2, ("--step 999999", "0 to")),
        (("--step", "20", "--update", "--minibatch", "99"), 2, ("--minibatch 99", "minibatches")),
        (("--nonfinite",), 2, ("no number was not finite",)),
        (("--nonfinite", "--prompt"), 2, ("--prompt",)),
        ((), 2, ("--step", "--nonfinite")),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(arguments: Any, code: int, words: Any, made: Any) -> None:
    assert replayed(made("ppo"), *arguments).refused(code, *words)


def test_nothing_is_written_into_the_run_folder(made: Any) -> None:
    folder = made("ppo")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert replayed(folder, "--step", 61, "--out", folder / "x.safetensors").refused(2, "is in the run folder")
    assert replayed(folder, "--step", 20).code == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_a_run_that_goes_no_way_twice_is_replayed_at_its_checkpoints_alone(tmp_path: Path) -> None:
    assert call(*tiny_run("impala"), "checkpoint_interval=64", run_dir(tmp_path)).code == 0
    step = read_meta(sorted((tmp_path / "checkpoints").glob("0*"))[0])["step"]
    assert replayed(tmp_path, "--step", step - 1).refused(2, "not in step", str(step))
    assert json.loads(replayed(tmp_path, "--step", step).out)["step"] == step


@pytest.mark.slow
def test_a_prompt_has_the_agent_in_it(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import code

    seen: dict[str, Any] = {}
    monkeypatch.setattr(code, "interact", lambda banner, local, exitmsg: seen.update(local, banner=banner))
    assert replayed(made("ppo"), "--step", 20, "--prompt").code == 0
    assert {"agent", "envs", "storage", "config"} <= set(seen)
    assert (seen["agent"].step, seen["config"]["seed"]) == (20, 1)


@pytest.mark.slow
def test_a_video_begins_at_the_step_and_ends_with_the_episode(made: Any, tmp_path: Path) -> None:
    iio = pytest.importorskip("imageio.v2")
    with moment(made("ppo"), 20) as here:
        length = here.agent.env.running_episodes()[0].length
    result = replayed(made("ppo"), "--step", 20, "--video", tmp_path / "from-there.mp4")
    (path,) = json.loads(result.out)["files"]
    assert Path(path) == tmp_path / "from-there.mp4"
    assert 2 <= len(iio.mimread(path, memtest=False)) < 500 - length


class Bad(nn.Module):
    """Passes on what it is given, until it has been called for training so often; then it makes a NaN."""

    def __init__(self, backward: bool, after: int = 6) -> None:
        super().__init__()
        self.backward_pass = backward
        self.register_buffer("left", torch.tensor(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        self.left -= 1
        if self.left > 0:
            return x
        return _Poison.apply(x) if self.backward_pass else x / torch.zeros(())


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")


class Planted(nn.Module):
    """An encoder with such a layer in its midst."""

    def __init__(self, space: Any, backward: bool = False) -> None:
        super().__init__()
        self.out_dim = 8
        self.body = nn.Sequential(nn.Linear(space.shape[0], 8), nn.Tanh(), Bad(backward), nn.Linear(8, 8))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(obs)
        return out


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_the_layer_that_made_the_first_nan_is_named(way: str, tmp_path: Path) -> None:
    planted = f"network.encoder={{_target_: tests.test_replay.Planted, backward: {str(way == 'backward').lower()}}}"
    options = (planted, "allow=[tests]", "checkpoint_interval=30", "network.shared=true", run_dir(tmp_path))
    assert call(*tiny_run("ppo"), *options).refused(4, "not finite")
    result = replayed(tmp_path, "--nonfinite", "--out", tmp_path.parent / f"{tmp_path.name}-batch.safetensors")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert (told["pass"], told["layer"], told["kind"]) == (way, "policy.encoder.body.2", "Bad")
    assert told["batch_is_the_saved_one"] is True
    assert "obs" in {name.rpartition("/")[2] for name in load_file(told["files"][0])}
    assert sys.modules["tests.test_replay"]


@pytest.mark.slow
def test_weights_that_a_step_made_infinite_are_named(tmp_path: Path) -> None:
    assert call(*tiny_run("sac"), "algorithm.lr=1e38", "checkpoint_interval=10", run_dir(tmp_path)).code == 4
    told = json.loads(replayed(tmp_path, "--nonfinite").out)
    assert told["layer"].startswith("policy.")
    assert told["pass"] in ("forward", "optimizer", "backward")
