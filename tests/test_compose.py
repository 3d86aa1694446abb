"""Every YAML composes, says all that its target takes, and builds."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hsw.build import build_agent
from hsw.config.files import conf_folder
from hsw.config.hydra_versions import instantiate
from hsw.config.resolved import check, identity
from hsw.config.targets import resolve_target
from hsw.env import VectorEnv
from hsw.errors import ConfigError
from hsw.run.services import Run
from hsw.signatures import signature_of
from hsw.sweep.callback import jobs_of
from tests.runs import TINY, agent_of, call, compose, rows, run_dir, tiny_run

GROUPS = ("env", "network", "storage", "algorithm", "agent", "pool", "logger", "intrinsic_reward")
# What the running program hands over, and no YAML can.
HANDED_OVER = {
    "env": {"seed", "training", "render_mode"},
    "algorithm": {"policy"},
    "agent": {
        *("env", "eval_env", "policy", "algorithm", "storage", "run"),
        *(
            "callbacks",
            "augmentation",
            "intrinsic_reward",
            "pool",
        ),  # of the root; a YAML may name the last, as impala's does
    },
    "pool": {"crew"},
}
NEEDS = {
    "ale": "ale_py",
    "atari": "envpool",
    "dm_control": "dm_control",
    "procgen": "PyQt5",
    "lunar_lander": "Box2D",
    "minatar_breakout": "minatar",
    "minatar": "minatar",
    "minigrid": "minigrid",
    "minigrid_memory_s7": "minigrid",
    **dict.fromkeys(("ant", "halfcheetah", "hopper", "humanoid", "swimmer", "walker2d"), "mujoco"),
    **dict.fromkeys((f"fetch_{task}" for task in ("pick_and_place", "push", "reach", "slide")), "gymnasium_robotics"),
    "point_maze": "gymnasium_robotics",
}
RECIPES = {
    "ppo": ("rollout", "ppo", "actor_critic"),
    "daac": ("decoupled", "daac", "decoupled"),
    "sac": ("replay", "sac", "soft_actor_critic"),
    "her_sac": ("her", "sac", "soft_actor_critic"),
    "impala": ("distributed", "impala", "recurrent"),
    "a2c": ("rollout", "a2c", "actor_critic"),
    "td3": ("replay", "td3", "deterministic"),
    "dqn": ("replay", "dqn", "q_network"),
    "her_dqn": ("her", "dqn", "q_network"),
    "recurrent_ppo": ("sequences", "recurrent_ppo", "memory"),
    "ppo_rnd": ("two_streams", "two_stream_ppo", "two_values"),
}
# These have the loop, the storage and the spaces of others, which are built on every environment.
LIKE_OTHERS = ("a2c", "td3", "dqn", "her_dqn", "recurrent_ppo", "ppo_rnd")
ALL_OF = ("cartpole", "pendulum", "bit_flipping")  # environments with which those too are tried
GOALS = ("bit_flipping", "point_maze", *(f"fetch_{task}" for task in ("pick_and_place", "push", "reach", "slide")))
CONTINUOUS = ("ant", "dm_control", "halfcheetah", "hopper", "humanoid", "pendulum", "swimmer", "walker2d", *GOALS)
# Others take every environment.
SUITED = {"sac": CONTINUOUS, "td3": CONTINUOUS, "her_sac": GOALS, "dqn": ("cartpole",), "her_dqn": ()}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in Path(conf_folder(), group).glob("*.yaml"))


def choices() -> list[tuple[str, str]]:
    return [(group, name) for group in GROUPS for name in names(group)]


def recipe_of(name: str) -> str:
    """The recipe that a storage, algorithm, network or pool belongs to."""
    if name == "prioritized":
        return "dqn"
    return next(
        (agent for agent, parts in RECIPES.items() if name in parts), "impala" if name in names("pool") else "ppo"
    )


@pytest.mark.parametrize(("group", "name"), choices())
def test_choice_composes_and_spells_out_its_target(group: str, name: str) -> None:
    config = compose(f"agent={recipe_of(name)}", f"{group}={name}", *["env.id=CartPole-v1"] * (name == "gym"))
    check(config)
    node = config[group]
    parameters = set(signature_of(resolve_target(node._target_)).hints)
    handed_over = HANDED_OVER.get(group, set())
    assert {str(key) for key in node if not str(key).startswith("_")} - handed_over == parameters - handed_over


@pytest.mark.parametrize("recipe", names("agent"))
def test_recipe_picks_its_parts_and_an_explicit_choice_wins(recipe: str) -> None:
    groups = ("storage", "algorithm", "network")
    config = compose(f"agent={recipe}")
    for group, name in zip(groups, RECIPES[recipe], strict=True):
        assert config[group]._target_ == OmegaConf.load(conf_folder() / group / f"{name}.yaml")._target_
        other = next(choice for choice in names(group) if choice != name)
        for order in ([f"{group}={other}", f"agent={recipe}"], [f"agent={recipe}", f"{group}={other}"]):
            assert compose(*order)[group]._target_ == OmegaConf.load(conf_folder() / group / f"{other}.yaml")._target_


@pytest.mark.parametrize("preset", names("preset"))
def test_preset_is_found_by_itself_and_yields_to_the_command_line(preset: str) -> None:
    agent = max((agent for agent in names("agent") if preset.startswith(f"{agent}_")), key=len)
    env = preset.removeprefix(f"{agent}_")
    choices = [f"agent={agent}", f"env={env}"]
    if env not in names("env"):  # for one game of an env: chosen by name
        choices = [f"agent={agent}", f"env={env.rpartition('_')[0]}", f"preset={preset}"]
    config = compose(*choices)
    check(config)
    values: Any = OmegaConf.load(conf_folder() / "preset" / f"{preset}.yaml")
    values.pop("defaults", None)
    assert OmegaConf.merge(config, values) == config
    assert compose(*choices, "algorithm.lr=0.125").algorithm.lr == 0.125


def test_there_are_the_five_studies() -> None:
    assert set(names("experiments")) >= {"all_agents", "daac_vs_ppo", "her_strategies", "impala_scaling", "value_freq"}


@pytest.mark.parametrize("study", names("experiments"))
def test_every_job_of_a_study_composes_and_yields_to_the_command_line(study: str) -> None:
    hydra_node = OmegaConf.load(conf_folder() / "experiments" / f"{study}.yaml").hydra
    assert hydra_node.mode == "MULTIRUN"
    params = [f"{key}={value}" for key, value in hydra_node.sweeper.params.items() if key != "seed"]
    assert "seed" in hydra_node.sweeper.params
    jobs = jobs_of(OverridesParser.create().parse_overrides(params))
    configs = []
    for job in jobs:
        config = compose(*job, f"experiments={study}")
        check(config)
        configs.append(identity(config))
        smoke = compose(*job, f"experiments={study}", "budget=smoke")
        check(smoke)
        assert smoke.num_train_steps < config.num_train_steps
    assert all(configs.count(config) == 1 for config in configs)
    assert compose(*jobs[-1], f"experiments={study}", "budget=smoke", "num_train_steps=7").num_train_steps == 7


@pytest.mark.parametrize("pair", names("pair"))
def test_pair_picks_an_agent_an_env_and_their_preset(pair: str) -> None:
    config = compose(f"pair={pair}")
    check(config)
    agent = max((agent for agent in names("agent") if pair.startswith(f"{agent}_")), key=len)
    values: Any = OmegaConf.load(conf_folder() / "pair" / f"{pair}.yaml")
    values.pop("defaults")
    same = compose(f"agent={agent}", f"env={pair.removeprefix(f'{agent}_')}")
    assert config == OmegaConf.merge(same, values)
    if pair in names("preset"):
        assert OmegaConf.merge(config, OmegaConf.load(conf_folder() / "preset" / f"{pair}.yaml")) == config


def test_each_part_of_rainbow_is_switched_by_itself() -> None:
    told = {}
    for part in names("rainbow"):
        config = compose("agent=dqn", "env=minatar_breakout", "storage=prioritized", f"rainbow={part}")
        check(config)
        settings = config.algorithm.double, config.network.dueling, config.storage.n_step > 1, config.storage.alpha > 0
        told[part] = settings
    parts = ("double", "dueling", "n_step", "prioritized")
    alone = {part: tuple(one == part for one in parts) for part in parts}
    assert told == {**alone, "plain": (False,) * 4, "all": (True,) * 4}


def test_every_recipe_has_a_pair_and_a_place_in_the_study_of_all_agents() -> None:
    study = OmegaConf.load(conf_folder() / "experiments" / "all_agents.yaml")
    pairs = [pair.strip() for pair in study.hydra.sweeper.params.pair.split(",")]
    recipes = {max((agent for agent in names("agent") if pair.startswith(f"{agent}_")), key=len) for pair in pairs}
    assert set(pairs) <= set(names("pair"))
    assert set(names("agent")) - recipes <= {"sac"}  # her_sac's algorithm and loop


@pytest.mark.parametrize("env", names("env"))
def test_a_recipe_builds_on_each_env_that_suits_it_and_another_is_refused(env: str) -> None:
    suited = [recipe for recipe in RECIPES if env in SUITED.get(recipe, [env])]
    build_or_refuse(env, suited[-1:] + [recipe for recipe in RECIPES if recipe not in suited][:1])


@pytest.mark.slow
@pytest.mark.parametrize("env", names("env"))
def test_every_recipe_builds_on_the_env_if_that_suits_it_and_else_refuses_it(env: str) -> None:
    build_or_refuse(env, [one for one in RECIPES if one not in LIKE_OTHERS or env in ALL_OF])


def build_or_refuse(env: str, recipes: list[str]) -> None:
    if env in NEEDS and find_spec(NEEDS[env]) is None:  # not imported: hsw loads Qt before EnvPool
        pytest.skip(f"needs {NEEDS[env]}")
    for recipe in recipes:
        parts = RECIPES[recipe]
        building = agent_of(f"agent={recipe}", f"env={env}", *["env.id=CartPole-v1"] * (env == "gym"))
        if env not in SUITED.get(recipe, [env]):
            refusal = r"\w+ takes (Box|Discrete) actions|hindsight needs Dict|env\.normalize_reward=true would store"
            with pytest.raises(ConfigError, match=refusal), building:
                pass
            continue
        with building as agent:
            assert isinstance(agent.env, VectorEnv)
            wanted = [
                OmegaConf.load(conf_folder() / group / f"{name}.yaml")._target_.rpartition(".")[2]
                for group, name in zip(("storage", "algorithm", "network"), parts, strict=True)
            ]
            assert [type(part).__name__ for part in (agent.storage, agent.algorithm, agent.policy)] == wanted


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_end_to_end_and_its_saved_config_builds_it_again(recipe: str, tmp_path: Path) -> None:
    before = os.getcwd()
    done = call(*tiny_run(recipe), run_dir(tmp_path))
    assert done.code == 0, done.err
    assert os.getcwd() == before
    assert {path.name for path in tmp_path.iterdir()} >= {"best", "checkpoints", "config.yaml", "versions.json"}
    assert rows(tmp_path)[-1]["step"] >= 128
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert "${" not in (tmp_path / "config.yaml").read_text()
    check(saved)
    agent = build_agent(saved, Run())
    agent.env.close()
    assert type(agent.algorithm).__name__.lower() == RECIPES[recipe][1].replace("_", "")


def test_hindsight_sac_takes_a_replay_without_hindsight(tmp_path: Path) -> None:
    done = call(*tiny_run("her_sac"), "storage=replay", run_dir(tmp_path))
    assert done.code == 0, done.err
    assert OmegaConf.load(tmp_path / "config.yaml").storage._target_ == "hsw.storage.ReplayStorage"


def test_spaces_in_the_minimal_form_build_a_run() -> None:
    minimal = (
        "observation_space={shape:[4]}",
        "action_space={shape:[2],type:Discrete,range:[0,1]}",
    )
    config = compose(*TINY, *minimal)
    policy = instantiate(config.network)
    storage = instantiate(config.storage)
    assert policy.distribution.params_dim == 2
    assert storage.observation_space.shape == (4,)


def test_storage_given_as_a_factory_trains(tmp_path: Path) -> None:
    factory = (
        "{_target_:hsw.storage.RolloutStorage.create_factory,size:16,num_envs:2,"
        "observation_space:${observation_space},action_space:${action_space}}"
    )
    tiny = [override for override in TINY if not override.startswith("storage.")]
    done = call(*tiny, "~storage", f"+storage={factory}", "env.discount=0.9", run_dir(tmp_path))
    assert done.code == 0, done.err
    assert rows(tmp_path)[-1]["step"] >= 128


def test_help_and_cfg_answer_without_a_run(tmp_path: Path) -> None:
    helped = call("--help")
    assert helped.code == 0
    assert all(f"{group}: {', '.join(names(group))}" in helped.out for group in GROUPS)
    shown = call("--cfg", "job", "agent=daac")
    assert shown.code == 0
    assert "hsw.algorithm.DAAC" in shown.out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["agent=daac", "storage=rollout"], "storage=decoupled"),
        (["agent=ppo", "network=decoupled"], "network=actor_critic"),
        (["agent=ppo", "algorithm=daac"], "network=decoupled"),
        (["agent=sac", "storage=decoupled"], "take storage=her or storage=prioritized or storage=replay"),
        (["agent=sac", "storage=rollout"], "take storage=her or storage=prioritized or storage=replay"),
        (["agent=ppo", "storage=replay"], "take storage=rollout"),
        (["agent=daac", "storage=her"], "take storage=decoupled"),
        (["agent=sac", "network=actor_critic"], "take network=soft_actor_critic"),
        (["agent=her_sac", "algorithm=ppo"], "take network=actor_critic"),
        (["agent=impala", "storage=rollout"], "take storage=distributed"),
        (["agent=impala", "network=actor_critic"], "take network=recurrent"),
        (["agent=ppo", "storage=distributed"], "take storage=rollout"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_with_those_that_do(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(compose(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("env.normalize_obs=true", r"env\.normalize_obs=true would give each actor statistics of its own"),
        ("env.normalize_reward=true", r"env\.normalize_reward=true would give each actor"),
        ("env.backend=async", r"env\.backend=async would start processes in each actor"),
        (
            "storage.num_storages=22 storage.batch_size=16 env.num_envs=8",
            r"num_storages=22 does not keep .* batch_size=16 and .* 8 environments .* at least 23",
        ),
        ("agent.num_steps=7", r"agent\.num_steps must be storage\.num_steps"),
    ],
)
def test_settings_with_which_actors_could_not_work_are_refused(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(compose("agent=impala", "env=catch", *overrides.split()))
