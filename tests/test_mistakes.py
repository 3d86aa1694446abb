"""Mistakes people make on the command line: one sentence that says what to type next, code 2, and no folder left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hsw import eval as evaluation
from hsw import plan, report
from hsw.api import compose as compose_for_python
from hsw.config.words import SYNONYMS, meant
from hsw.errors import ConfigError
from tests.runs import ROOT, call, compose

# Files of a user's own conf folder, by path.
MINE = {
    "callbacks/lacking.yaml": "_target_: hsw.agent.callbacks.StopWithoutImprovement\npatience: 2\n",
    "algorithm/lacking.yaml": "_target_: hsw.algorithm.A2C\nlr: 1.0e-3\n",
    "env/lacking.yaml": "id: CartPole-v1\n",
    "experiments/lacking.yaml": "num_train_steps: 64\n",
    "preset/lacking.yaml": "num_train_steps: 64\n",
}
REFUSED = [
    ("algorithm.lr=interval(0,1) --multirun", "list them: algorithm.lr="),
    ("hydra/sweeper=optuna --multirun algorithm.lr=interval(0,1)", "python -m hsw.tune"),
    ("seed=1,2", "seed=1,2 is a sweep over several values, which needs --multirun"),
    (
        "agent=sac env=cartpole",
        "and the environment has Discrete ones; take agent=a2c, agent=daac, agent=dqn, agent=impala, agent=ppo, ",
    ),
    (
        "experiments=lacking",
        "there is no experiments.num_train_steps; the file of experiments=<choice> needs '# @package _global_'",
    ),
    ("preset=lacking", "there is no preset.num_train_steps; the file of preset=<choice> needs '# @package _global_'"),
    ("env=lacking", "env must be a choice of conf/env, or a mapping with a _target_"),
    ("algorithm.learning_rate=1e-3", "there is no algorithm.learning_rate; did you mean algorithm.lr?"),
    ("total_timesteps=1000", "did you mean num_train_steps?"),
    ("env.n_envs=4", "did you mean env.num_envs?"),
    ("gamma=0.9", "did you mean storage.discount?"),
    (
        "env=MountainCar-v0",
        "there is no env=MountainCar-v0; any Gymnasium id is given as env=gym env.id=MountainCar-v0",
    ),
    ("experiment=all_agents", "there is no experiment; did you mean experiments?"),
    ("env.num_envs=0", "env.num_envs=0 must be at least 1"),
    ("network.hidden_sizes=[64,a]", "network.hidden_sizes.1=a must be a whole number"),
    ("preset=sac_pendulum", "preset=sac_pendulum has values for agent=sac, and the agent is ppo"),
    (
        "callbacks=[erly_stop]",
        "there is no callbacks=erly_stop; did you mean callbacks=early_stop? (choices: early_stop, ",
    ),
    (
        "callbacks=early_stop ~callbacks.erly_stop",
        "there is no callbacks.erly_stop; did you mean callbacks.early_stop?",
    ),
    ("preset=nothing", "there is no preset=nothing (choices: "),
    ("--multirn", "there is no flag --multirn; did you mean --multirun?"),
    ("--config-dir", "--config-dir needs a value"),
    ("--seed 3", "there is no flag --seed; values are given as key=value, such as seed=<value>"),
    ("--resume outputs/x", "there is no flag --resume; values are given as key=value, such as resume=<value>"),
    ("--total-timesteps=10", "such as num_train_steps=<value>"),
    ("env.kwarg.size=2", "there is no env.kwarg.size; did you mean env.kwargs?"),
    ("callbacks=[early_stop] callbacks.early_stop.patiense=2", "did you mean callbacks.early_stop.patience?"),
    (
        "callbacks=[lacking]",
        "callbacks have names; the file of callbacks=[<choice>] needs a line such as '<choice>:' above its _target_",
    ),
    (
        "algorithm=lacking",
        "there is no algorithm.num_epochs, which preset=ppo_cartpole sets for another algorithm; ~preset",
    ),
    ("hydra.mode=RUN experiments=value_freq", "experiments=value_freq is a sweep; leave hydra.mode out"),
    ("from=nowhere", "there is no run in nowhere"),
    ("env.kwargs={kind:ring}", "unexpected keyword argument 'kind'"),
]
REFUSED_SWEEPS = [
    ("seed=1,2 algorithm.learning_rate=1", "did you mean algorithm.lr?"),
    ("seed=1,2 algorithm.lr=-1", "algorithm.lr=-1 must be at least 0"),
    ("preset=sac_pendulum,ppo_catpole", "preset=sac_pendulum has values for agent=sac"),
    ("experiments=value_freq algorithm.lr=fast", "algorithm.lr=fast must be a number"),
]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty working folder, beside a conf folder of one's own."""
    for name, text in MINE.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def with_conf(folder: Path, arguments: str) -> list[str]:
    return ["--config-dir", str(folder.parent / "conf"), *arguments.split()]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_a_mistake_is_told_in_a_sentence_and_leaves_nothing(arguments: str, sentence: str, empty: Path) -> None:
    own = with_conf(empty, arguments) if "lacking" in arguments else arguments.split()
    assert call(*own).refused(2, sentence)
    assert os.listdir(empty) == []


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED_SWEEPS)
def test_a_sweep_of_which_no_job_could_begin_leaves_nothing(arguments: str, sentence: str, empty: Path) -> None:
    assert call("--multirun", *arguments.split()).refused(2, sentence)
    assert os.listdir(empty) == []


def test_words_of_other_libraries_lead_to_keys_that_are_there() -> None:
    known = [[*leaves(compose(f"agent={agent}")), "experiments"] for agent in ("ppo", "sac", "her_sac", "impala")]
    for word, keys in SYNONYMS.items():
        assert all(any(key in own for own in known) for key in keys), word
        for own in known:
            here = [key for key in keys if key in own]
            for place in ("", "algorithm."):
                assert not here or meant(place + word, own) == f"; did you mean {here[0]}?"


def leaves(node: Any, path: str = "") -> list[str]:
    inner = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if not isinstance(inner, dict):
        return [path]
    return [path, *(leaf for key in inner for leaf in leaves(inner[key], f"{path}.{key}".lstrip(".")))]


def test_a_folder_that_was_there_is_left_as_it_was(empty: Path) -> None:
    (empty / "run").mkdir()
    assert call("env.id=Nothing-v0", "hydra.run.dir=run").refused(2, "Nothing")
    assert os.listdir(empty / "run") == []
    (empty / "run" / "mine.txt").write_text("mine")
    assert call("env.id=Nothing-v0", "hydra.run.dir=run").refused(2, "Nothing")
    assert (empty / "run" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("main", "arguments", "sentence"),
    [
        (evaluation.cli, ["outputs", "--episode", "x"], "--episode"),
        (evaluation.cli, ["outputs", "--nothing"], "--nothing; --help"),
        (evaluation.cli, [], "folder"),
        (evaluation.cli, ["."], "there is no run in ."),
        (report.cli, ["outputs", "--nothing"], "--nothing; --help"),
        (report.cli, ["."], "there is no run in ."),
        (plan.cli, ["outputs", "--nothing"], "--difference; --help"),
        (plan.cli, [".", "--difference", "1"], "there is no run in ."),
    ],
)
def test_the_other_commands_tell_theirs_in_a_sentence(main: Any, arguments: Any, sentence: str, empty: Path) -> None:
    assert call(*arguments, main=main).refused(2, sentence)
    assert os.listdir(empty) == []


def test_a_choice_that_has_the_name_of_one_of_hsws_is_refused_where_it_is_taken(empty: Path) -> None:
    mine = empty.parent / "conf" / "algorithm" / "ppo.yaml"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("_target_: mine.PPO\n")
    small = [
        "num_train_steps=8",
        "storage.num_steps=2",
        "env.num_envs=2",
        "eval_episodes=1",
        "hydra.run.dir=run",
        "quiet=true",
    ]
    conf = str(empty.parent / "conf")
    for arguments in (["--config-dir", conf], [f"hydra.searchpath=[file://{conf}]"]):
        assert call(*arguments, *small).refused(2, f"algorithm=ppo is hsw's own, and {mine} would not be read")
    with pytest.raises(ConfigError, match="algorithm=ppo is hsw's own"):
        compose_for_python(small, config_dir=conf)
    mine.write_bytes((ROOT / "conf" / "algorithm" / "ppo.yaml").read_bytes())
    assert call("--config-dir", conf, *small).code == 0, "a copy of hsw's own files says nothing else"
