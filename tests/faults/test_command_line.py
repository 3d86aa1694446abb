"""What people get wrong on the command line: code 2 and one sentence that says what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runs import COMMON, TINY, call, run_dir

BAD = [
    ("sed=3", "no sed; did you mean seed?"),
    ("agent.lr=1", "no agent.lr; did you mean algorithm.lr?"),
    ("algorithm.clip_rang=0.1", "did you mean algorithm.clip_range?"),
    ("+algorithm.lr2=1", "did you mean algorithm.lr?"),
    ("env=catpole", "did you mean env=cartpole?"),
    ("env=null", "~env leaves it out"),
    ("preset=ppo_catpole", "no preset=ppo_catpole (choices: "),
    ("experiments=nothing", "no experiments=nothing"),
    ("logger=nothing", "choices: csv, local, mlflow, tensorboard, wandb"),
    ("env.kwargs.length=3", "unexpected keyword argument 'length'"),
    ("algorithm.lr=fast", "algorithm.lr=fast must be a number"),
    ("algorithm.lr=-1", "algorithm.lr=-1 must be at least 0"),
    ("storage.discount=2", "storage.discount=2 must be in [0, 1]"),
    ("algorithm.lr_schedule=cosin", "must be one of constant, linear"),
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


BAD_REPLAYS = [
    (
        "sac",
        "env=cartpole",
        "SoftActorCritic takes Box actions, and the environment has Discrete ones; take agent=a2c, ",
    ),
    ("sac", "env.id=tests.envs:Unbounded-v0", "SAC needs continuous actions between finite bounds"),
    ("her_sac", "env=pendulum", "hindsight needs Dict observations"),
    ("her_sac", "env.id=tests.envs:Goal-v0 +env.kwargs.continuous=true", "missing: achieved_goal"),
    ("her_sac", "env.id=tests.envs:Goals-v0", "give reward_fn, or an environment that has compute_reward"),
    ("sac", "env=pendulum env.normalize_obs=true", "set network.normalize_obs=true instead"),
    ("sac", "env=pendulum env.normalize_reward=true", "env.normalize_reward=true"),
    ("her_sac", "env=bit_flipping env.frame_stack=2", "frame_stack needs a Box observation"),
    ("sac", "env=pendulum storage=decoupled", "take storage=her or storage=prioritized or storage=replay"),
    ("sac", "env=pendulum storage.storage_size=1", "storage_size=1 must be at least num_envs=2"),
    ("sac", "env=pendulum storage.batch_size=0", "storage.batch_size=0 must be at least 1"),
    ("sac", "env=pendulum storage.storage_siz=10", "did you mean storage.storage_size?"),
    ("sac", "env=pendulum agent.updates_per_step=0", "agent.updates_per_step=0 must be greater than 0"),
    ("sac", "env=pendulum agent.num_warmup_steps=-1", "agent.num_warmup_steps=-1 must be at least 0"),
    ("sac", "env=pendulum algorithm.tau=2", "algorithm.tau=2 must be"),
    ("her_sac", "env=bit_flipping storage.goal_selection_strategy=last", "must be one of future, final, episode"),
    ("her_sac", "env=bit_flipping storage.num_goals=-1", "storage.num_goals=-1 must be at least 0"),
]


@pytest.mark.parametrize(("recipe", "arguments", "message"), BAD_REPLAYS)
def test_what_a_replay_or_sac_cannot_use_is_refused(recipe: str, arguments: str, message: str, tmp_path: Path) -> None:
    result = call(*COMMON, f"agent={recipe}", run_dir(tmp_path), *arguments.split())
    assert result.refused(2, message)


TARGETS = [
    "os.system",
    "builtins.exec",
    "pickle.loads",
    "torch.load",
    "torch.nn.functional.torch.load",
    "hsw.config.targets.resolve_target",
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
