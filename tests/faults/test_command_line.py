"""What people get wrong on the command line: code 2 and one sentence that says what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runs import TINY, call, run_dir

BAD = [
    ("sed=3", "no sed; did you mean seed?"),
    ("agent.lr=1", "no agent.lr; did you mean algorithm.lr?"),
    ("algorithm.clip_rang=0.1", "did you mean algorithm.clip_range?"),
    ("+algorithm.lr2=1", "did you mean algorithm.lr?"),
    ("env=catpole", "did you mean env=cartpole?"),
    ("env=null", "~env leaves it out"),
    ("preset=ppo_catpole", "no preset=ppo_catpole (choices: "),
    ("experiments=nothing", "no experiments=nothing"),
    ("logger=nothing", "choices: local, tensorboard, wandb"),
    ("env.kwargs.length=3", "+env.kwargs.length="),
    ("algorithm.lr=fast", "algorithm.lr=fast must be a number"),
    ("algorithm.lr=-1", "algorithm.lr=-1 must be at least 0"),
    ("storage.discount=2", "storage.discount=2 must be in [0, 1]"),
    ("algorithm.lr_schedule=cosine", "must be one of constant, linear"),
    ("env=gym", "env.id is missing"),
    ("env.id=???", "env.id is missing"),
    ("env.id=CartPole-v9", "env.id=CartPole-v9"),
    ("env.id=no_such_module:Env-v0", "no_such_module"),
    ("env.num_envs=0", "num_envs=0 must be at least 1"),
    ("storage.num_envs=3", "must be env.num_envs=2"),
    ("algorithm.num_mini_batch=33", "32 transitions cannot make 33 minibatches"),
    ("num_train_steps=0", "num_train_steps=0 must be at least 1"),
    ("threads=2.5", "threads=2.5 must be a whole number"),
    ("device=tpu", "use auto, cpu, cuda"),
    ("seed=${sed}", "'sed' not found"),
    ("allow=tests", "allow=tests must be a list"),
    ("~storage", "storage must be a choice of conf/storage"),
    ("storage=decoupled", "storage=rollout"),
    ("network=decoupled", "network=actor_critic"),
    ("agent=daac storage=rollout", "storage=decoupled"),
    ("tag=../../x", "tag must be"),
    ("tag=..", "tag must be"),
    (f"tag={'x' * 300}", "tag must be"),
    ("tag='ü'", "tag must be"),
    ("tag=ü", "cannot read the argument"),
    ("tag='a\0b'", ""),
    ("tag=5", "tag=5 must be a word"),
    ("seed=[", "cannot read the argument"),
    ("wandb.api_key=123", "looks like a secret"),
    ("tag=hunter2hunter2", "has the value of a secret"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_bad_argument_is_refused_in_one_sentence(arguments: str, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SERVICE_PASSWORD", "hunter2hunter2")
    refusal = call(*TINY, run_dir(tmp_path / "root" / "run"), *arguments.split())
    assert refusal.refused(2, message)
    assert "hunter2hunter2" not in refusal.err
    assert not (tmp_path / "x").exists()
    assert set(os.listdir(tmp_path)) <= {"root"}


TARGETS = [
    "os.system",
    "builtins.exec",
    "pickle.loads",
    "torch.load",
    "torch.nn.functional.torch.load",
    "hsw.run.targets.resolve_target",
    "gymnasium.make",
    "subprocess.Popen",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_could_run_anything_is_refused(target: str, tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    for place in ("storage", "+storage.device", "+env.kwargs.x"):
        node = f"{place}={{_target_:{target},_args_:['touch {bomb}']}}"
        name = place.lstrip("+")
        arguments = (
            [f"~{name}", f"+{node}"] if name == "storage" else [node.replace("+storage.device", "storage.device")]
        )
        assert call(*TINY[2:3], *arguments, run_dir(tmp_path / "run")).refused(2, f"_target_={target}")
    assert not bomb.exists()
