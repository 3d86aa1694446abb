"""Command lines that work: free-form keys, several loggers, parts and files of one's own, and configs run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hsw import report
from hsw.config.arguments import prepare, prepare_overrides
from hsw.config.choices import preset_note
from hsw.config.resolved import check, load_config
from hsw.errors import ConfigError
from hsw.signatures import method_parameters, signature_of
from hsw.storage import DecoupledRolloutStorage, RolloutStorage
from tests.config import parts
from tests.runs import TINY, call, compose, run_dir

PARTS = "tests.config.parts"
ALLOW = "allow=[tests]"


def config_of(folder: Path) -> Any:
    return OmegaConf.load(folder / "config.yaml")


def test_flags_may_stand_anywhere() -> None:
    assert prepare(["a=1", "--multirun", "b=1,2", "-cd", "x", "c=3"]) == ["--multirun", "-cd=x", "a=1", "b=1,2", "c=3"]
    assert prepare(["a=1", "--info", "b=2"]) == ["--info=all", "a=1", "b=2"]
    assert prepare(["a=1", "--cfg", "job"]) == ["--cfg=job", "a=1"]


def test_a_sweep_whose_flag_stands_last_runs(tmp_path: Path) -> None:
    done = call("agent=ppo", *TINY, "seed=1,2", f"hydra.sweep.dir={tmp_path}", "--multirun")
    assert done.code == 0, done.err
    assert {path.parent.name for path in tmp_path.glob("*/config.yaml")} == {"seed-1", "seed-2"}


@pytest.mark.parametrize(
    "kwargs",
    ["env.kwargs={length:3,truncate:true}", "env.kwargs.length=3 +env.kwargs.truncate=true"],
)
def test_free_form_keys_need_no_plus(kwargs: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = call(*TINY, "env.id=tests.envs:Counter-v0", *kwargs.split(), "env.eval_kwargs.length=4", run_dir(run))
    assert done.code == 0, done.err
    assert config_of(run).env.kwargs.length == 3
    assert config_of(run).env.eval_kwargs == {"length": 4}
    assert "return 4.0 ± 0.0" in (run / "train.log").read_text()


def test_whole_floats_are_whole_numbers() -> None:
    config = compose("num_train_steps=1e5", "storage.num_steps=64.0", "network.hidden_sizes=[32.0,8]")
    plain, _ = check(config)
    for read in (plain, OmegaConf.to_container(config)):
        assert isinstance(read["num_train_steps"], int)
        assert (read["num_train_steps"], read["storage"]["num_steps"]) == (100_000, 64)
        assert read["network"]["hidden_sizes"] == [32, 8]
        assert all(isinstance(size, int) for size in read["network"]["hidden_sizes"])
    assert isinstance(compose("algorithm.lr=1").algorithm.lr, int)  # and a whole number is a number


def test_several_loggers_have_names_and_one_has_none() -> None:
    assert compose("logger=wandb", "logger.project=x").logger.project == "x"
    two = compose(*prepare_overrides(["logger=[wandb, tensorboard]", "logger.wandb.project=x"]))
    _, targets = check(two)
    assert (two.logger.wandb.project, set(two.logger)) == ("x", {"wandb", "tensorboard"})
    assert {"logger.wandb", "logger.tensorboard"} <= set(targets)
    assert prepare_overrides(["logger=[tensorboard]"]) == ["logger=tensorboard"]
    with pytest.raises(ConfigError, match=r"no logger\.wandb\.projekt; did you mean logger\.wandb\.project"):
        check(compose("~logger", "+logger@logger.wandb=wandb", "+logger.wandb.projekt=x"))


def test_callbacks_are_checked_by_name() -> None:
    stop = f"callbacks={{stop:{{_target_:{PARTS}.Stop,patience:%s}}}}"
    for value, fault in (("3", None), ("many", "callbacks.stop.patience=many must be a whole number")):
        config = compose(ALLOW, *prepare_overrides([stop % value]))
        if fault is None:
            assert check(config)[1]["callbacks.stop"] is parts.Stop
            continue
        with pytest.raises(ConfigError, match=fault):
            check(config)
    with pytest.raises(ConfigError, match=r"callbacks\.stop must be .*mapping of names"):
        check(compose("++callbacks={stop:3}"))
    with pytest.raises(ConfigError, match="allow="):
        check(compose(*prepare_overrides([stop % "3"])))


def test_parameters_are_found_through_kwargs() -> None:
    two, three = signature_of(parts.P2), signature_of(parts.P3)
    assert {"policy", "foo", "lr", "clip_range"} <= set(two.hints)
    assert three.required == {"policy", "bar"}
    assert not three.open
    assert signature_of(parts.Anything).open
    assert set(signature_of(parts.Loop).hints) >= {"env", "eval_interval", "run"}
    assert method_parameters(parts.Rollout, "add") == method_parameters(RolloutStorage, "add")
    for storage in (RolloutStorage, DecoupledRolloutStorage):
        wrapped: Any = type("Wrapped", (storage,), {"add": parts.Rollout.add})
        assert wrapped.extras() == storage.extras()


def test_a_storage_that_does_not_say_what_it_takes_is_told_so() -> None:
    silent: Any = type("Silent", (RolloutStorage,), {"add": lambda self, row: None})
    with pytest.raises(ConfigError, match=r"Silent\.add must take next_obs"):
        silent.extras()


def test_parts_that_hand_on_what_they_do_not_name_train(tmp_path: Path) -> None:
    own = [f"{group}._target_={PARTS}.{name}" for group, name in (("network", "Network"), ("storage", "Rollout"))]
    own += [f"agent._target_={PARTS}.Loop", f"algorithm._target_={PARTS}.P3"]
    own += ["+algorithm.foo=2", "+algorithm.bar=0.5", ALLOW]
    done = call(*TINY, *own, run_dir(tmp_path))
    assert done.code == 0, done.err
    assert (config_of(tmp_path).algorithm.foo, config_of(tmp_path).algorithm.bar) == (2, 0.5)


def test_a_typo_and_a_missing_argument_are_told_through_kwargs_too() -> None:
    algorithm = f"algorithm._target_={PARTS}.P3"
    with pytest.raises(
        ConfigError, match=r"algorithm\.bar is missing: tests.config.parts.P3 needs it; set \+algorithm"
    ):
        check(compose(ALLOW, algorithm))
    with pytest.raises(ConfigError, match=r"there is no algorithm\.fooo; did you mean algorithm\.foo"):
        check(compose(ALLOW, algorithm, "+algorithm.bar=1", "+algorithm.fooo=2"))
    with pytest.raises(ConfigError, match=r"there is no algorithm\.policy"):
        check(compose("+algorithm.policy=3"))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    files = {
        "preset/mine.yaml": "# @package _global_\nstorage: {num_steps: 24}\n",
        "preset/ppo_ring.yaml": "# @package _global_\nstorage: {num_steps: 24}\n",
        "env/ring.yaml": "defaults: [gym, _self_]\nid: tests.envs:Counter-v0\n",
        "storage/mine.yaml": f"defaults: [rollout, _self_]\n_target_: {PARTS}.Rollout\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("way", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_files_of_ones_own_are_choices_wherever_hydra_finds_them(way: str, conf: Path, tmp_path: Path) -> None:
    find = way.format(conf)
    tiny = [override for override in TINY if not override.startswith("storage.")]
    for arguments, preset in (("preset=mine", "mine"), ("env=ring", "ppo_ring")):
        run = tmp_path / preset
        done = call(find, *tiny, *arguments.split(), run_dir(run))
        assert done.code == 0, done.err
        assert (config_of(run).preset, config_of(run).storage.num_steps) == (preset, 24)
    assert call(find, "preset=min", run_dir(tmp_path / "x")).refused(2, "choices: ", " mine,", "ppo_ring")
    assert call(find, "env=rin", run_dir(tmp_path / "x")).refused(2, "did you mean env=ring?")
    assert call(find, "env=ring", "env.backen=x", run_dir(tmp_path / "x")).refused(2, "did you mean env.backend?")
    refused = call(find, ALLOW, "agent=ppo", "storage=replay", run_dir(tmp_path / "x"))
    assert refused.refused(2, "storage=mine or storage=rollout")


def test_the_preset_taken_is_told() -> None:
    choices = {"agent": "sac", "env": "gym", "preset": "sac_gym"}
    assert "preset=sac_halfcheetah" in preset_note(choices, {"env": {"id": "HalfCheetah-v5"}})
    assert preset_note(choices, {"env": {"id": "Hopper-v5"}}) == "none, general values"
    assert preset_note({**choices, "env": "pendulum", "preset": "sac_pendulum"}, {}) == "sac_pendulum"
    other = preset_note({**choices, "env": "hopper", "preset": "sac_halfcheetah"}, {})
    assert other == "sac_halfcheetah, made for another environment"


# from=<run folder>


def test_a_config_runs_again_with_changes_and_what_depends_on_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert call(*TINY, "tag=mine", "logger=tensorboard", "algorithm.lr=0.5", run_dir(first)).code == 0
    again = call(f"from={first}", "seed=7", "env.num_envs=3", "logger=local", "storage.discount=0.5", run_dir(second))
    assert again.code == 0, again.err
    before, after = load_config(first), load_config(second)
    assert (after.seed, after.env.num_envs, after.storage.num_envs, after.env.discount) == (7, 3, 3, 0.5)
    assert (after.tag, after.algorithm.lr, after.storage.num_steps) == ("mine", 0.5, before.storage.num_steps)
    log = (second / "train.log").read_text()
    for line in ("seed: 1 -> 7", "env.num_envs: 2 -> 3", "storage.num_envs: 2 -> 3", "env.discount: 0.98 -> 0.5"):
        assert line in log
    assert "algorithm.lr" not in log
    swept = call(f"from={second}", "seed=7,9", "--multirun", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert swept.code == 0, swept.err
    assert "unchanged" in (tmp_path / "sweep" / "seed-7" / "train.log").read_text()
    assert "changed in seed: 7 -> 9; agent.seed: 7 -> 9" in (tmp_path / "sweep" / "seed-9" / "train.log").read_text()


def test_a_job_of_a_study_runs_again_by_itself(tmp_path: Path) -> None:
    study = ("experiments=daac_vs_ppo", "agent=ppo", "seed=1", *TINY, "eval_interval=null")
    assert call(*study, f"hydra.sweep.dir={tmp_path}").code == 0
    (job,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    done = call(f"from={job}", "seed=2", run_dir(tmp_path / "new"))
    assert done.code == 0, done.err
    assert load_config(tmp_path / "new").seed == 2


@pytest.mark.parametrize(
    ("stored", "code", "sentence"),
    [
        ('{"overrides": ["tag=${oc.env:HOME}"]}', 7, "no interpolation"),
        ('{"overrides": ["hydra/launcher=joblib"]}', 7, "nothing of hydra"),
        ('{"overrides": ["--config-dir=x"]}', 7, "no flag"),
        ('{"overrides": ["allow=[os]"]}', 7, "nothing of hydra"),
        ('{"overrides": [1]}', 7, "no list of overrides"),
        ("[", 7, "cannot be read"),
        ('{"overrides": ["logger._target_=os.system"]}', 2, "_target_=os.system is not allowed"),
        ('{"overrides": ["env.id=tests.envs:Counter-v0"]}', 2, "--allow tests"),
    ],
)
def test_a_folder_says_nothing_that_could_run(stored: str, code: int, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "choices.json").write_text(stored)
    assert call(f"from={tmp_path}", run_dir(tmp_path / "new")).refused(code, sentence)
    assert not (tmp_path / "new").exists()


def test_what_a_run_was_composed_from_is_kept_and_resume_is_not(tmp_path: Path) -> None:
    discount = "env.discount=${storage.discount}"
    assert call(*TINY, "allow=[tests]", discount, run_dir(tmp_path)).code == 0
    kept = json.loads((tmp_path / "choices.json").read_text())
    assert kept["overrides"] == [*TINY, discount]  # as it was typed, and not what it read here
    assert call(f"from={tmp_path}", run_dir(tmp_path / "new")).refused(7, "no interpolation")
    assert (kept["choices"]["agent"], kept["choices"]["preset"]) == ("ppo", "ppo_cartpole")
    assert "Preset: ppo_cartpole" in call(str(tmp_path), "--no-curves", main=report.cli).out
    assert call(f"resume={tmp_path}", "num_train_steps=200").code == 0
    assert json.loads((tmp_path / "choices.json").read_text()) == kept
    assert config_of(tmp_path).resume is None
    assert call(f"from={tmp_path}", f"resume={tmp_path}").refused(2, "leave resume")
