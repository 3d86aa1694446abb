"""Losses and weights that are not finite: code 4, the batch is kept, and no checkpoint is poisoned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.agent.extremes import likely_cause
from hsw.errors import NonFiniteError
from hsw.run.checkpoint import all_finite, list_checkpoints, load_newest, read_state
from tests.envs import Noise
from tests.runs import CONTINUOUS, ENVS, agent_of, call, newest, rows, run_dir, tiny, tiny_run
from tests.test_resume import when


@pytest.mark.parametrize(
    ("recipe", "names"),
    [("ppo", {"advantages"}), ("daac", {"advantages"}), ("sac", {"next_obs"}), ("her_sac", {"rewards", "terminateds"})],
)
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_batch(recipe: str, names: Any, tmp_path: Path) -> None:
    result = call(*tiny_run(recipe), "algorithm.lr=1e38", "checkpoint_interval=10", run_dir(tmp_path))
    assert result.refused(4, "update", "not finite", "its batch is in")
    (kept,) = tmp_path.glob("nonfinite-*")
    batch, _ = read_state(kept)
    assert {"obs", "actions", *names} <= set(batch)
    for number in list_checkpoints(tmp_path / "checkpoints"):
        assert all_finite(read_state(tmp_path / "checkpoints" / f"{number:06d}")[0]["policy"])
    rows(tmp_path)


@pytest.mark.parametrize("recipe", ["ppo", "sac"])
def test_poisoned_weights_reach_no_checkpoint_and_no_best(recipe: str, tmp_path: Path) -> None:
    overrides = (f"agent={recipe}", *ENVS[recipe], "checkpoint_interval=20", "eval_interval=20")
    with agent_of(*overrides, folder=tmp_path) as agent:
        updates = [0]

        def poison(info: Any) -> bool:
            updates[0] += 1
            if updates[0] == (3 if recipe == "ppo" else 30):
                with torch.no_grad():
                    next(agent.policy.parameters()).fill_(float("nan"))
            return False

        when(agent, agent.algorithm, "update", poison)
        with pytest.raises(NonFiniteError, match=r"NaN or infinite|not finite"):
            agent.train(128)
    assert all_finite(newest(tmp_path)["policy"])
    assert all_finite(load_newest(tmp_path / "best")[0]["policy"])


def test_an_action_that_is_not_finite_is_the_policys_fault_and_not_the_environments(tmp_path: Path) -> None:
    with agent_of("agent=sac", *ENVS["sac"], "agent.updates_per_step=0.1", folder=tmp_path) as agent:

        def poison(info: Any) -> bool:
            with torch.no_grad():
                next(agent.policy.actor.parameters()).fill_(float("nan"))
            return False

        when(agent, agent.algorithm, "update", poison)
        with pytest.raises(NonFiniteError, match=r"SoftActorCritic's actions are not finite at step \d+"):
            agent.train(128)


class Huge(Noise):
    """In one environment of two, one number of each episode is `value`: a reward, or a part of an observation."""

    def __init__(self, what: str = "reward", value: float = 1e20, bounded: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what, self.value = what, value
        if not bounded:
            self.action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observe(self) -> Any:
        obs = super().observe()
        self.mine = obs[0] > 0 if self.count == 0 else self.mine
        if self.what == "obs" and self.count == 1:
            obs[1] = self.value
        return obs

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(np.clip(action, -1, 1))
        return obs, self.value if self.what == "reward" and self.count == 1 else reward, *rest


gym.register("Huge-v0", Huge)
RELU = ("network.activation=relu",)
EXTREME = [
    ("ppo", ("+env.kwargs.value=1e20",), ("rewards", "1e+20", "environment")),
    ("ppo", ("+env.kwargs.value=-3e38",), ("rewards", "-3e+38", "environment")),
    ("sac", ("+env.kwargs.value=1e20", *CONTINUOUS[1:]), ("rewards", "1e+20")),
    pytest.param(
        "impala", ("+env.kwargs.value=1e20", "algorithm.clip_reward=null"), ("rewards", "1e+20"), marks=pytest.mark.slow
    ),
    ("ppo", ("+env.kwargs.what=obs", *RELU), ("observations", "1e+20", "environment")),
    ("daac", ("+env.kwargs.what=obs", "+env.kwargs.value=-1e30", *RELU), ("observations", "-1e+30", "environment")),
    ("sac", ("+env.kwargs.what=obs", *CONTINUOUS[1:]), ("observations", "1e+20")),
    pytest.param(
        "impala",
        ("+env.kwargs.what=obs", "+env.kwargs.value=3e38", *RELU),
        ("observations", "3e+38"),
        marks=pytest.mark.slow,
    ),
    ("ppo", ("+env.kwargs.value=1", "+env.kwargs.bounded=false", "algorithm.lr=1e4"), ("actions",)),
]


@pytest.mark.parametrize(("recipe", "arguments", "words"), EXTREME)
def test_a_number_too_large_for_a_loss_is_named(recipe: str, arguments: Any, words: Any, tmp_path: Path) -> None:
    result = call(*tiny(recipe), "env.id=tests.faults.test_numbers:Huge-v0", *arguments, run_dir(tmp_path))
    assert result.refused(4, "not finite", *words)


def test_extreme_numbers_are_told_with_their_range_and_environment() -> None:
    actions = torch.zeros(5, 3, 2)
    actions[2, 1, 0] = -1e20
    assert "actions, which go from -1e+20 to 0 (environment 1)" in likely_cause({"actions": actions}, env_axis=1)
    assert likely_cause({"obs": {"a": torch.ones(3), "b": torch.full((3,), math.nan)}}).startswith(
        "; the observations 'b'"
    )
    assert likely_cause({"obs": torch.ones(3), "rewards": None, "values": torch.full((3,), 1e30)}) == ""


def test_rewards_of_ordinary_size_are_not_blamed(tmp_path: Path) -> None:
    result = call(*tiny_run("ppo"), "algorithm.lr=1e38", run_dir(tmp_path))
    assert result.refused(4, "not finite")
    assert "likely" not in result.err
