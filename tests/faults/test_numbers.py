"""Losses and weights that are not finite: code 4, the batch is kept, and no checkpoint is poisoned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hsw.errors import NonFiniteError
from hsw.run.checkpoint import all_finite, list_checkpoints, load_newest, read_state
from tests.runs import ENVS, agent_of, call, newest, rows, run_dir, tiny_run
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
