"""profile=true: a trace of three iterations and a table of their time, and the run is the same run."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

import hsw

LOOPS = {
    "ppo": ["agent=ppo", "env.num_envs=2", "storage.num_steps=8", "algorithm.num_epochs=1"],
    "sac": ["agent=sac", "env=pendulum", "agent.num_warmup_steps=20", "network.hidden_sizes=[8]"],
}
ENDS = {"ppo": 90, "sac": 30}


def trained(path: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train. Returns the rows of its metrics without what is of the clock."""
    common = ["quiet=true", "device=cpu", "eval_episodes=1", *overrides]
    hsw.make(hsw.compose(common), path).train()
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "run") and not k.startswith("speed/")} for row in rows]


def table(path: Path) -> dict[str, float]:
    """Milliseconds by phase."""
    text = (path / "profile" / "phases.md").read_text().partition("| operation")[0]
    return {name: float(spent) for name, spent in re.findall(r"^\| (\w+) \| ([0-9.]+) \|", text, re.MULTILINE)}


@pytest.mark.parametrize("loop", LOOPS)
def test_three_iterations_are_traced_and_the_run_is_the_same(tmp_path: Path, loop: str) -> None:
    overrides = [*LOOPS[loop], f"num_train_steps={ENDS[loop]}"]
    plain = trained(tmp_path / "plain", *overrides)
    assert trained(tmp_path / "run", *overrides, "profile=true") == plain
    assert not (tmp_path / "plain" / "profile").exists()
    trace = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())["traceEvents"]
    phases = [event for event in trace if event.get("cat") == "phase"]
    rows = 24 if loop == "ppo" else 3  # of three iterations
    assert [sum(event["name"] == name for event in phases) for name in ("act", "env", "store", "update")] == [
        *[rows] * 3,
        3,
    ]
    within = [event for event in phases if event["name"] == "update"]
    products = [event for event in trace if event.get("name") == "aten::addmm"]
    inside = [any(one["ts"] <= event["ts"] <= one["ts"] + one["dur"] for one in within) for event in products]
    assert any(inside), "the phases are not on the trace's own clock"
    told = table(tmp_path / "run")
    total = told.pop("all")
    assert set(told) == {"act", "env", "store", "update", "rest"}
    assert sum(told.values()) == pytest.approx(total, rel=1e-3, abs=0.01)


def test_a_run_that_is_too_short_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hsw"):
        trained(tmp_path / "run", *LOOPS["ppo"], "num_train_steps=16", "profile=true")
    assert "the run ended before a second iteration, and nothing was profiled" in caplog.text
    assert not (tmp_path / "run" / "profile").exists()


def test_no_link_in_the_folder_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent = hsw.make(hsw.compose([*LOOPS["ppo"], "num_train_steps=90", "profile=true", "quiet=true"]), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "profile").symlink_to(tmp_path / "elsewhere")
    agent.eval_env = None
    with caplog.at_level(logging.WARNING, "hsw"):
        agent.train()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "the profile is not written" in caplog.text


@pytest.mark.slow
def test_a_learner_with_actors_waits_and_updates(tmp_path: Path) -> None:
    trained(tmp_path / "run", "agent=impala", "env=catch", "num_train_steps=30000", "profile=true")
    assert set(table(tmp_path / "run")) == {"waiting", "update", "rest", "all"}
