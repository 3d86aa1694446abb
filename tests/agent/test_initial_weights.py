"""init_from: an agent begins with weights that another has learnt, and says which."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hsw
from hsw.agent import Agent
from hsw.errors import ConfigError, CorruptError
from tests.runs import call, differences, newest, run_dir, tiny_run

NORMALISED = ("env.normalize_obs=true",)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of PPO that normalises its observations."""
    folder = tmp_path_factory.mktemp("source") / "run"
    hsw.make(hsw.compose([*tiny_run("ppo"), *NORMALISED]), folder).train()
    return folder


def begun(source: Path, *overrides: str, recipe: str = "ppo") -> Agent:
    return hsw.make(hsw.compose([*tiny_run(recipe), "seed=2", f"init_from='{source}'", *overrides]))


def test_an_agent_begins_with_a_runs_weights_and_statistics(source: Path) -> None:
    agent, saved = begun(source, *NORMALISED), newest(source)
    assert not differences(agent.policy.state_dict(), saved["policy"])
    assert not differences(agent.env.obs_statistics(), saved["env"]["obs_statistics"])
    assert agent.step == 0


def test_the_best_networks_and_a_file_of_weights_do_as_well(source: Path, tmp_path: Path) -> None:
    weights = newest(source)["policy"]
    save_file(weights, tmp_path / "weights.safetensors")
    for place in (source / "best", tmp_path / "weights.safetensors"):
        assert set(begun(place).policy.state_dict()) == set(weights)
    assert not differences(begun(tmp_path / "weights.safetensors").policy.state_dict(), weights)


def test_heads_of_another_shape_begin_anew_and_are_named(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = dict(newest(source)["policy"])
    kept = {name: value for name, value in weights.items() if "head" not in name}
    other = {**kept, "policy_head.weight": torch.zeros(5, 64), "policy_head.bias": torch.zeros(5)}
    folder = source.parent / "other.safetensors"
    save_file(other, folder)
    with caplog.at_level(logging.INFO):
        agent = begun(folder)
    own = agent.policy.state_dict()
    assert all(torch.equal(own[name], value) for name, value in kept.items())
    assert own["policy_head.weight"].any()
    told = caplog.text
    assert f"{len(kept)} of {len(weights)} tensors taken" in told
    assert "begun anew: policy_head.weight" in told
    assert "value_head" in told


def test_another_algorithm_takes_what_it_knows_and_names_the_rest(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent, weights = begun(source, recipe="daac"), newest(source)["policy"]
    assert torch.equal(agent.policy.state_dict()["policy_head.weight"], weights["policy_head.weight"])
    assert "advantage_head" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"network.hidden_sizes": "[8,8]"},
            r"another network or observation: encoder\S* is \(64, 4\) there and \(8, 4\)",
        ),
        ({"env": "acrobot"}, r"another network or observation: encoder\S* is \(64, 4\) there and \(64, 6\)"),
        ({"init_from": "nowhere"}, "there is neither a run's folder nor a file of weights"),
        ({"init_from": "tests"}, "there is no run, it has no folder checkpoints"),
    ],
)
def test_what_is_of_another_network_is_refused(change: dict[str, str], message: str, source: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        begun(source, *(f"{key}={value}" for key, value in change.items()))


def test_weights_of_which_nothing_fits_or_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_file({"body.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="no tensor has its name"):
        begun(tmp_path / "other.safetensors")
    save_file({"policy_head.bias": torch.tensor([0.0, float("nan")])}, tmp_path / "nan.safetensors")
    with pytest.raises(CorruptError, match="NaN"):
        begun(tmp_path / "nan.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CorruptError, match="cannot be read"):
        begun(tmp_path / "torn.safetensors")


def test_a_resumed_run_does_not_begin_again(source: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(newest(source)["policy"], weights)
    first = call(*tiny_run("ppo"), f"init_from={weights}", run_dir(tmp_path / "run"))
    assert first.code == 0, first.err
    weights.unlink()
    more = call(f"resume={tmp_path / 'run'}", "num_train_steps=192")
    assert more.code == 0, more.err


@pytest.mark.parametrize("recipe", ["sac", "impala"])
def test_every_loop_begins_with_weights(recipe: str, tmp_path: Path) -> None:
    donor: Any = hsw.make(hsw.compose(tiny_run(recipe)))
    save_file({name: value.contiguous() for name, value in donor.policy.state_dict().items()}, tmp_path / "weights")
    assert not differences(begun(tmp_path / "weights", recipe=recipe).policy.state_dict(), donor.policy.state_dict())
