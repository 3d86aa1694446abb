"""Folders of 0.1.0 evaluate, report, resume, and are skipped by their sweep: their configs lack what came later."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hsw import eval as evaluation
from hsw import report
from hsw.config import defaults
from hsw.config.defaults import KEYS, Key, fill_in, leave_out
from hsw.config.resolved import identity, load_config
from tests.runs import call, compose, newest, rows, run_dir

OLD = Path(__file__).parent / "data" / "runs-0.1.0"
RUNS = ("ppo", "daac", "sac", "her_sac", "impala")
SWEEP = [
    "agent=ppo,daac",
    "seed=1,2",
    "num_train_steps=64",
    "env.num_envs=2",
    "eval_episodes=2",
    "device=cpu",
    "threads=1",
    "quiet=true",
    "checkpoint_interval=64",
    "storage.num_steps=16",
    "algorithm.num_mini_batch=2",
    "algorithm.num_epochs=2",
    "network.hidden_sizes=[8,8]",
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_evaluates_and_resumes_as_what_it_was(run: str, old: Path) -> None:
    folder = old / run
    before = json.loads((folder / "status.json").read_text())["identity"]
    scored = call(str(folder), "--episodes", "2", main=evaluation.cli)
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["episodes"] == 2
    step = newest(folder)["step"]
    more = call(f"resume={folder}", f"num_train_steps={step + 40}")
    assert more.code == 0, more.err
    assert newest(folder)["step"] >= step + 40
    assert rows(folder)[-1]["step"] >= step + 40
    assert json.loads((folder / "status.json").read_text())["identity"] == before
    assert "resume: null\n" in (folder / "config.yaml").read_text()


def test_old_runs_are_reported(old: Path) -> None:
    told = call(*(str(old / run) for run in RUNS), "--format", "json", "--no-curves", main=report.cli)
    assert told.code == 0, told.err
    runs = [run for part in _studies(json.loads(told.out)) for run in part["runs"]]
    assert {run["status"] for run in runs} == {"done"}
    assert len(runs) == len(RUNS)


def _studies(told: Any) -> list[Any]:
    return told if isinstance(told, list) else told.get("studies", [told])


def test_an_old_sweep_is_skipped_by_its_own_command(old: Path) -> None:
    again = call("--multirun", *SWEEP, f"hydra.sweep.dir={old / 'sweep'}")
    assert again.code == 0, again.err
    assert again.out.count("done before") == 4


@pytest.mark.parametrize("job", ["agent-ppo+seed-1", "agent-daac+seed-2"])
def test_the_identity_of_an_old_job_is_that_of_the_same_command_today(job: str, old: Path) -> None:
    told = json.loads((old / "sweep" / job / "status.json").read_text())["identity"]
    agent, seed = (part.partition("-")[2] for part in job.split("+"))
    assert identity(compose(f"agent={agent}", f"seed={seed}", *SWEEP[2:])) == told


def test_a_new_value_of_a_new_key_makes_another_job() -> None:
    plain = identity(compose("agent=ppo"))
    changes = ("init_from=weights.safetensors", "augmentation={_target_:x.Y}", "++callbacks={stop:{_target_:x.Y}}")
    for change in changes:
        assert identity(compose("agent=ppo", change)) != plain
    for same in ("init_from=null", "checkpoint_keep=9", "callbacks={}"):
        assert identity(compose("agent=ppo", same)) == plain


class Changed:
    """A part whose parameter is new, and does by default what no earlier version did."""

    def __init__(self, clip_range: float = 0.2, value_clip_range: float | None = None, rate: int = 2) -> None:
        pass


def test_missing_keys_mean_what_they_meant(monkeypatch: Any) -> None:
    monkeypatch.setattr(defaults, "resolve_target", {"it": Changed}.__getitem__)
    clip = Key("algorithm.value_clip_range", lambda config: config["algorithm"]["clip_range"], targets=("it",))
    rate = Key("algorithm.rate", 1, targets=("it",), idle=lambda node: node["clip_range"] == 0)
    monkeypatch.setattr(defaults, "KEYS", (*KEYS, clip, rate))
    old = {"algorithm": {"_target_": "it", "clip_range": 0.3}}
    config: Any = copy.deepcopy(old)
    fill_in(config)
    assert config["algorithm"] == {**old["algorithm"], "value_clip_range": 0.3, "rate": 1}
    new = {"callbacks": {}, "checkpoint_keep": 2, "init_from": None, "augmentation": None, "intrinsic_reward": None}
    assert {key: config[key] for key in new} == new
    leave_out(config)
    assert config == old
    for same in ({"clip_range": 0, "value_clip_range": 0, "rate": 5}, {"clip_range": 1, "value_clip_range": 1}):
        left = {"algorithm": {"_target_": "it", **same}}
        leave_out(left)
        assert left["algorithm"] == {"_target_": "it", "clip_range": same["clip_range"]}
    for other in ({"_target_": "it", "clip_range": 1, "rate": 5}, {"_target_": "x", "clip_range": 1, "rate": 1}):
        left = {"algorithm": dict(other)}
        leave_out(left)
        assert left["algorithm"] == other


def test_a_part_called_action_mask_was_one_like_others() -> None:
    for parts, meant in (({"seen": {"shape": [2]}}, "auto"), ({"action_mask": {"shape": [2]}}, "none")):
        config = {"env": {"_target_": "hsw.env.make_env"}, "observation_space": {"type": "Dict", "spaces": parts}}
        fill_in(config)
        assert config["env"]["action_mask"] == meant


def test_an_old_run_is_run_again_from_its_command(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    done = call(f"from={old / 'ppo'}", "seed=7", run_dir(new))
    assert done.code == 0, done.err
    assert "seed: 1 -> 7" in (new / "train.log").read_text()
    config, before = load_config(new), load_config(old / "ppo")
    assert (config.seed, config.storage.num_steps, config.algorithm.lr) == (7, 16, before.algorithm.lr)


def test_an_old_job_of_a_sweep_cannot_tell_what_it_was_composed_from(old: Path, tmp_path: Path) -> None:
    refused = call(f"from={old / 'sweep' / 'agent-ppo+seed-1'}", "seed=7", run_dir(tmp_path / "new"))
    assert refused.refused(2, "does not tell what its config was composed from", "a job of a sweep")
    assert not (tmp_path / "new").exists()
