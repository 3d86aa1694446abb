"""Whole recipes reach their scores. Slow; the README holds the last results."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def _final_evaluation(folder, *overrides):
    command = [sys.executable, "-m", "hsw.train", "quiet=true", f"hydra.run.dir={folder}", *overrides]
    subprocess.run(command, check=True, timeout=3000)
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(
    ("recipe", "budget"), [(("storage=decoupled", "agent=daac"), 100_000), (("agent=ppo",), 50_000)]
)
def test_cartpole_is_solved_within_the_budget(tmp_path, recipe, budget, seed):
    row = _final_evaluation(tmp_path / "run", *recipe, f"seed={seed}")
    assert row["step"] <= budget
    assert row["eval/return_mean"] >= 475


@pytest.mark.parametrize(
    ("env", "package", "score"), [("minatar_breakout", "minatar", 5.0), ("lunar_lander", "Box2D", 150.0)]
)
def test_ppo_learns_harder_environments(tmp_path, env, package, score):
    pytest.importorskip(package)
    row = _final_evaluation(tmp_path / "run", "agent=ppo", f"env={env}")
    assert row["eval/return_mean"] >= score
