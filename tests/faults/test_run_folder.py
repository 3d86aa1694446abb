"""A run folder that is damaged, foreign or hostile: named, passed over where that is safe, and never executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hsw.run.checkpoint import FORMAT, list_checkpoints
from tests.runs import TINY, call, newest, rows, run_dir, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert call(*TINY, "checkpoint_interval=40", run_dir(folder)).code == 0
    assert len(list_checkpoints(folder / "checkpoints")) == 2
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def tensors(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/*/tensors.safetensors"))


def change_config(run: Path, **changes: Any) -> None:
    config = OmegaConf.load(run / "config.yaml")
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    OmegaConf.save(config, run / "config.yaml")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_checkpoint_damaged_is_named_and_the_one_before_continues(run: Path) -> None:
    damaged = tensors(run)[-1]
    flip(damaged)
    result = call(f"resume={run}", "num_train_steps=200")
    assert result.code == 0, result.err
    log = (run / "train.log").read_text()
    assert f"{damaged.parent} is damaged: {damaged.name} does not match its checksum; the checkpoint before" in log
    steps = [row["step"] for row in rows(run) if "learn/policy_loss" in row]
    assert steps == sorted(set(steps))
    assert newest(run)["step"] >= 200


@pytest.fixture(scope="module")
def finished_replay(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("replay") / "run"
    done = call(*tiny("sac"), "env=pendulum", "env.num_envs=2", "checkpoint_interval=40", run_dir(folder))
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def replay_run(finished_replay: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_replay, tmp_path / "run"))


def rows_of_checkpoints(run: Path) -> list[set[Path]]:
    """The files of rows of each checkpoint, oldest first."""
    manifests = [json.loads(path.read_text()) for path in sorted(run.glob("checkpoints/*/manifest.json"))]
    files = [[entry for entries in manifest["rows"].values() for entry in entries] for manifest in manifests]
    return [{run / "checkpoints" / "rows" / entry["sha256"] for entry in entries} for entries in files]


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_new_rows_damaged_are_named_and_the_checkpoint_before_continues(damage: Any, replay_run: Path) -> None:
    older, newer = rows_of_checkpoints(replay_run)
    (path,) = newer - older
    damage(path)
    result = call(f"resume={replay_run}", "num_train_steps=160")
    assert result.code == 0, result.err
    log = (replay_run / "train.log").read_text()
    assert path.name in log
    assert "the checkpoint before it is used" in log
    steps = [row["step"] for row in rows(replay_run) if "learn/critic_loss" in row]
    assert steps == sorted(set(steps))
    assert newest(replay_run)["step"] >= 160


def test_rows_damaged_to_which_all_checkpoints_refer_are_an_error(replay_run: Path) -> None:
    older, newer = rows_of_checkpoints(replay_run)
    assert older & newer
    for path in older & newer:
        flip(path)
    assert call(f"resume={replay_run}").refused(7, "no checkpoint in", "checksum")


def test_a_replay_of_another_network_or_size_is_refused_with_what_differs(replay_run: Path) -> None:
    change_config(replay_run, network__hidden_sizes=[16, 16])
    assert call(f"resume={replay_run}").refused(2, "another network", "critics", "(16, 4)", "(8, 4)")
    change_config(replay_run, network__hidden_sizes=[8, 8], storage__storage_size=100)
    assert call(f"resume={replay_run}").refused(2, "the saved replay has the layout [", " 41,", " 51,")


def test_all_checkpoints_damaged_is_an_error_and_no_fresh_start(run: Path) -> None:
    for path in tensors(run):
        flip(path)
    logged = (run / "metrics.jsonl").read_bytes()
    assert call(f"resume={run}").refused(7, "no checkpoint in", "checksum")
    shutil.rmtree(run / "checkpoints")
    assert call(f"resume={run}").refused(7, "there is none")
    assert (run / "metrics.jsonl").read_bytes() == logged


def test_a_later_format_is_said_and_the_checkpoint_before_continues(run: Path) -> None:
    _, newer = (path.parent / "manifest.json" for path in tensors(run))
    newer.write_text(json.dumps({**json.loads(newer.read_text()), "format": FORMAT + 1}))
    assert call(f"resume={run}", "num_train_steps=200").code == 0
    assert (
        f"format {FORMAT + 1}, and this hsw reads up to {FORMAT}; update hsw; the ch" in (run / "train.log").read_text()
    )


def test_a_later_format_alone_is_refused(run: Path) -> None:
    for path in tensors(run):
        manifest = path.parent / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": FORMAT + 1}))
    assert call(f"resume={run}").refused(7, f"format {FORMAT + 1}", "update hsw")


def test_a_checkpoint_of_another_network_or_env_is_refused_with_what_differs(run: Path) -> None:
    change_config(run, network__hidden_sizes=[32, 32])
    assert call(f"resume={run}").refused(2, "another network", "encoder", "(64, 4)", "(32, 4)")
    change_config(run, network__hidden_sizes=[64, 64], env__id="Acrobot-v1")
    assert call(f"resume={run}").refused(2, "observation_space")


class Bomb:
    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


def test_a_pickle_in_a_run_folder_is_not_loaded(run: Path, tmp_path: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        for path in folder.iterdir():
            path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert call(f"resume={run}").refused(7, "no checkpoint in")
    (run / "config.yaml").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert call(f"resume={run}").refused(7, "config.yaml cannot be read")
    assert not (tmp_path / "exploded").exists()


HOSTILE = {
    "system": {"network__encoder": {"_target_": "os.system", "command": "touch {bomb}"}},
    "torch": {"storage___target_": "torch.nn.functional.torch.load"},
    "resolver": {"algorithm___target_": "hsw.config.targets.resolve_target"},
    "hydra": {"env__kwargs": {"x": [{"_target_": "hydra.utils.get_method", "path": "os.system"}]}},
    "allowed": {"algorithm___target_": "tests.envs.Counter", "allow": ["tests"]},
    "module": {"env__id": "tests.envs:Counter-v0", "allow": ["tests"]},
    "interpolated": {"storage___target_": "${evil}", "evil": "os.system"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_config_that_names_what_it_may_not_is_refused(name: str, run: Path, tmp_path: Path) -> None:
    text = OmegaConf.to_yaml(HOSTILE[name])
    change_config(run, **OmegaConf.create(text.replace("{bomb}", str(tmp_path / "exploded"))))
    assert call(f"resume={run}").refused(7, "cannot be run", "")
    assert not (tmp_path / "exploded").exists()


def test_a_yaml_tag_constructs_nothing(run: Path, tmp_path: Path) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(f"\nx: !!python/object/apply:os.mkdir ['{tmp_path / 'exploded'}']\n")
    assert call(f"resume={run}").refused(7, "cannot be read")
    assert not (tmp_path / "exploded").exists()


def test_the_command_line_trusts_what_the_folder_cannot(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call(*TINY, "env.id=tests.envs:Counter-v0", run_dir(run)).code == 0
    assert call(f"resume={run}").refused(7, "--allow tests")
    again = call(f"resume={run}", "allow=[tests]")
    assert again.code == 0, again.err
