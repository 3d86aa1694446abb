"""hsw from Python: compose, make, load."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import hsw
from hsw import eval as evaluation
from hsw.agent import DistributedAgent
from hsw.agent.evaluation import evaluate
from hsw.build import build_env
from hsw.errors import ConfigError, CorruptError, EnvError
from hsw.run.folder import RunFolder
from hsw.spaces import tree_map
from tests.runs import call, compose, rows, run_dir, tiny_run, without_times

OLD = Path(__file__).parent / "data" / "runs-0.1.0"


def trained(tmp_path: Path, recipe: str, *overrides: str) -> Path:
    """A folder that a tiny run made in Python has left."""
    agent = hsw.make(hsw.compose([*tiny_run(recipe), *overrides]), tmp_path / "run")
    agent.train()
    agent.env.close()
    return tmp_path / "run"


def test_importing_hsw_loads_nothing_and_hides_no_module() -> None:
    code = (
        "import sys, hsw; print({'torch', 'hydra', 'hsw.api'} & set(sys.modules));"
        "import hsw.train, hsw.build; print(type(hsw.train).__name__, type(hsw.build).__name__, callable(hsw.load))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "module module True"]
    assert set(hsw.__all__) <= set(dir(hsw))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(hsw, "nothing")  # noqa: B009


def test_compose_gives_the_config_of_the_command_line() -> None:
    overrides = ["agent=daac", "env=cartpole", "algorithm.lr=0.125"]
    config = hsw.compose(overrides)
    expected = compose(*overrides)
    expected.preset = "daac_cartpole"  # which the command has from Hydra
    assert config == expected
    assert config.algorithm.lr == 0.125


@pytest.mark.parametrize(
    "overrides",
    [
        ["sed=3"],
        ["algorithm.lr=fast"],
        ["agent=pppo"],
        ["env=cartpol"],
        ["preset=mine"],
        ["agent=sac", "storage=rollout"],
        ["seed={1"],
        ["+wandb_api_key=abc"],
    ],
)
def test_compose_refuses_in_the_words_of_the_command(overrides: list[str]) -> None:
    told = call(*overrides)
    with pytest.raises(ConfigError) as refused:
        hsw.compose(overrides)
    assert told.code == 2
    assert told.sentence == f"hsw: {refused.value}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["--multirun"], "--multirun is a flag"), (["resume=x"], r"python -m hsw\.train resume=x")],
)
def test_compose_takes_no_flags_and_resumes_nothing(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hsw.compose(overrides)


def test_compose_takes_choices_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "mine.yaml").write_text("# @package _global_\nalgorithm: {lr: 0.25}\n")
    assert hsw.compose(["preset=mine"], config_dir=tmp_path).algorithm.lr == 0.25
    with pytest.raises(ConfigError, match="there is no folder"):
        hsw.compose(config_dir=tmp_path / "nowhere")


def test_an_agent_made_in_python_is_the_one_that_the_command_trains(tmp_path: Path) -> None:
    config = hsw.compose(tiny_run("ppo"))
    before = config.copy()
    agent = hsw.make(config, tmp_path / "python")
    assert config == before
    scores = agent.train()
    assert call(*tiny_run("ppo"), run_dir(tmp_path / "command")).code == 0
    assert without_times(tmp_path / "python") == without_times(tmp_path / "command")
    statuses = [json.loads((tmp_path / name / "status.json").read_text()) for name in ("python", "command")]
    assert scores is not None
    assert scores["mean"] == statuses[0]["return"]
    for status in statuses:
        assert status.pop("seconds") > 0
        assert len(status.pop("run")) == 32  # each run has an id of its own
    assert statuses[0] == statuses[1]
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("python", "command")]
    assert names[1] - names[0] <= {"train.log", "choices.json"}
    same = [OmegaConf.load(tmp_path / name / "config.yaml") for name in ("python", "command")]
    assert same[0] == same[1]


def test_a_folder_made_in_python_is_evaluated_and_resumed(tmp_path: Path) -> None:
    folder = trained(tmp_path, "ppo")
    scores = evaluation.evaluate_run(folder, episodes=2)
    assert scores["step"] == rows(folder)[-1]["step"]
    assert hsw.load(folder).evaluate(2)["returns"] == scores["returns"]
    more = call(f"resume={folder}", "num_train_steps=256")
    assert more.code == 0, more.err
    assert rows(folder)[-1]["step"] >= 256


def test_a_run_in_python_that_fails_says_so_and_gives_the_folder_back(tmp_path: Path) -> None:
    agent = hsw.make(hsw.compose([*tiny_run("ppo"), "env=gym", "env.id=tests.envs:NaNReward-v0"]), tmp_path / "run")
    with pytest.raises(EnvError, match="reward"):
        agent.train()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("failed", 3)
    RunFolder(tmp_path / "run").close()


def test_make_refuses_a_folder_that_holds_a_run_and_trains_longer_in_its_own(tmp_path: Path) -> None:
    config = hsw.compose(tiny_run("ppo"))
    agent = hsw.make(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run"):
        hsw.make(config, tmp_path / "run")
    agent.train(64)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["num_train_steps"] == 64
    agent.train()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["num_train_steps"]) == ("done", 128)


def test_make_without_a_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hsw.make(hsw.compose(tiny_run("ppo"))).train() is not None
    assert list(tmp_path.iterdir()) == []


def test_the_distributed_agent_keeps_its_signature_and_takes_the_configs_budget(tmp_path: Path) -> None:
    parameters = inspect.signature(DistributedAgent.train).parameters
    assert parameters["num_train_steps"].default == 30_000_000
    folder = trained(tmp_path, "impala")
    assert 128 <= rows(folder)[-1]["step"] < 1000


def test_an_agent_without_a_budget_asks_for_one() -> None:
    agent = hsw.make(hsw.compose(tiny_run("ppo")))
    agent.num_train_steps = None
    with pytest.raises(ConfigError, match="no budget"):
        agent.train()


class Recorder:
    """Keeps what an evaluation's environment gave and took."""

    def __init__(self, env: Any) -> None:
        self.obs: list[Any] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        backend = env._backend
        self._reset, self._step = backend.reset, backend.step
        backend.reset, backend.step = self.reset, self.step

    def reset(self, *args: Any) -> Any:
        obs = self._reset(*args)
        self.obs.append(tree_map(np.array, obs))
        return obs

    def step(self, actions: np.ndarray) -> Any:
        self.actions.append(actions.copy())
        result = self._step(actions)
        self.obs.append(tree_map(np.array, result[0]))
        self.rewards.append(np.array(result[1]))
        self.dones.append(result[2] | result[3])
        return result


STACKED = ("env.frame_stack=3", "env.normalize_obs=true")


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [("ppo", ()), ("daac", STACKED), ("her_sac", ()), ("sac", ()), ("impala", ("network.lstm_size=4",))],
)
def test_a_loaded_policy_acts_on_plain_observations_as_it_is_evaluated(
    recipe: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """What act answers to an evaluation's own observations, one after another, is what that evaluation did."""
    policy = hsw.load(trained(tmp_path, recipe, *overrides), allow=["tests"])
    env = build_env(policy.config, training=False, num_envs=1)
    env.load_obs_statistics(policy.statistics)
    recorded = Recorder(env)
    evaluate(policy.policy, env, 3, True, 1, torch.device("cpu"))
    env.close()
    reward = None
    for t, actions in enumerate(recorded.actions):
        if t and recorded.dones[t - 1][0]:  # the episode is over; whoever plays himself resets, and asks nothing here
            policy.reset()
            continue
        answer = policy.act(tree_map(lambda part, t=t: part[0], recorded.obs[t]), rewards=reward)
        np.testing.assert_allclose(answer, actions[0], rtol=1e-5, atol=1e-6)
        assert answer.dtype == actions.dtype
        reward = float(recorded.rewards[t][0])


@pytest.mark.parametrize(("recipe", "overrides"), [("ppo", STACKED), ("impala", ("network.lstm_size=4",))])
def test_batches_are_acted_on_as_each_of_their_observations(
    recipe: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    folder = trained(tmp_path, recipe, *overrides)
    batched, singles = hsw.load(folder), [hsw.load(folder), hsw.load(folder)]
    shape = batched.config.observation_space.shape
    size = (2, *(shape if recipe == "impala" else [4]))
    generator = np.random.default_rng(0)
    for t in range(8):
        obs = generator.uniform(0, 1, size=size).astype(np.float32)
        ended = np.array([t == 3, t in (3, 5)])
        rewards = generator.normal(size=2)
        for policy, over in zip(singles, ended, strict=True):
            if over:
                policy.reset()
        batched.reset(ended)
        actions = batched.act(obs, rewards=rewards)
        assert [policy.act(obs[i], rewards=rewards[i]) for i, policy in enumerate(singles)] == actions.tolist()


def test_a_policy_without_memory_takes_any_number_of_observations(tmp_path: Path) -> None:
    policy = hsw.load(trained(tmp_path, "ppo"))
    obs = np.random.default_rng(0).normal(size=(5, 4))  # float64, as somebody's own arithmetic gives
    actions = policy.act(obs)
    assert actions.shape == (5,)
    assert [int(policy.act(one)) for one in obs] == actions.tolist()
    assert {int(action) for _ in range(20) for action in policy.act(obs, deterministic=False)} == {0, 1}
    with pytest.raises(ConfigError, match=r"obs has the shape \(3,\); it must be \(4,\)"):
        policy.act(np.zeros(3))


def test_a_policy_that_remembers_says_what_it_needs(tmp_path: Path) -> None:
    policy = hsw.load(trained(tmp_path, "impala"))
    obs = np.zeros(policy.config.observation_space.shape, np.float32)
    policy.act(obs)
    with pytest.raises(ConfigError, match="takes in the last reward"):
        policy.act(obs)
    with pytest.raises(ConfigError, match=r"these are 2 observations, .* reset\(\) first"):
        policy.act(np.stack([obs, obs]), rewards=[0.0, 0.0])
    policy.reset()
    assert policy.act(np.stack([obs, obs])).shape == (2,)


def test_checkpoints_are_chosen_by_name_or_step(tmp_path: Path) -> None:
    folder = trained(tmp_path, "ppo", "checkpoint_interval=64", "eval_interval=64")
    steps = sorted({hsw.load(folder).step, hsw.load(folder, "best").step})
    assert hsw.load(folder, steps[-1]).step == steps[-1]
    with pytest.raises(ConfigError, match=r"no checkpoint of step 7 .* of steps .*" + str(steps[-1])):
        hsw.load(folder, 7)


@pytest.mark.parametrize("recipe", ["ppo", "daac", "sac", "her_sac", "impala"])
def test_runs_of_the_first_version_are_loaded(recipe: str) -> None:
    policy = hsw.load(OLD / recipe)
    space = policy.config.observation_space
    parts = {key: np.zeros(list(part.shape)) for key, part in space.get("spaces", {}).items()}
    obs = parts or np.zeros(list(space.shape))
    assert np.isfinite(policy.act(obs)).all()
    assert len(policy.metrics) == len(rows(OLD / recipe))


def test_metrics_are_the_rows_with_or_without_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = hsw.load(trained(tmp_path, "ppo"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert policy.metrics == rows(tmp_path / "run")
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    assert isinstance(policy.metrics, pandas.DataFrame)
    assert policy.metrics["step"].tolist() == [row["step"] for row in rows(tmp_path / "run")]


def test_loading_executes_nothing_that_the_caller_does_not_trust(tmp_path: Path) -> None:
    folder = trained(tmp_path, "ppo")
    saved = OmegaConf.load(folder / "config.yaml")
    saved.network._target_ = "os.system"
    OmegaConf.save(saved, folder / "config.yaml")
    with pytest.raises(CorruptError, match="not allowed"):
        hsw.load(folder)
    with pytest.raises(ConfigError, match="there is no run"):
        hsw.load(tmp_path / "nowhere")
