"""A package of somebody's own adds every kind of part, found in both ways, and nothing of hsw is edited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, Result, finish, start

OUTSIDE = ROOT / "tests" / "outside"
CONF = OUTSIDE / "lab" / "conf"
WAYS = {"config-dir": ("--config-dir", str(CONF)), "searchpath": (f"hydra.searchpath=[file://{CONF}]",)}
COMMANDS = {
    "module": (sys.executable, "-m", "hsw.train"),
    "script": (str(Path(sys.executable).with_name("hsw-train")),),
}
QUIET = ("quiet=true", "device=cpu", "threads=1")
ALL = ("agent=lab", "env=corridor", "callbacks=[stop_after]", "logger=lines", "allow=[lab]", *QUIET)


def run(folder: Path, command: str, way: str, *arguments: str) -> Result:
    """Run hsw-train in an empty folder, as whoever installed both packages would."""
    if not Path(COMMANDS[command][0]).exists():
        pytest.skip("hsw is not installed as a command here")
    path = os.pathsep.join((str(ROOT), str(OUTSIDE), os.environ.get("PYTHONPATH", "")))
    environ = {**os.environ, "PYTHONPATH": path}
    if command == "module":
        return finish(start(*WAYS[way], *arguments, env=environ, cwd=folder), 120)
    line = [*COMMANDS[command], *WAYS[way], *arguments]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environ, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("command", "way"), [("module", "config-dir"), ("script", "searchpath")])
def test_each_kind_of_part_comes_from_outside(tmp_path: Path, command: str, way: str) -> None:
    done = run(tmp_path, command, way, *ALL, "hydra.run.dir=run")
    assert done.code == 0, done.err
    folder = tmp_path / "run"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    updates = [row for row in rows if "learn/policy_loss" in row]
    config = (folder / "config.yaml").read_text()
    for target in ("vpg.VPG", "networks.LinearPolicy", "networks.Fourier", "networks.Tempered", "storage.DearSteps"):
        assert f"_target_: lab.{target}" in config
    assert "corridor.Squared" in config
    assert "num_train_steps: 2000" in config, "the preset was not taken"
    assert len(updates) == 6, "the callback did not stop the run"
    assert len((folder / "lines.txt").read_text().splitlines()) == len(rows), "the logger did not get every row"
    shape = json.loads((folder / "status.json").read_text())
    assert shape["status"] == "done"


def test_an_outside_run_goes_on_bit_for_bit_and_is_evaluated(tmp_path: Path) -> None:
    whole, cut = ("callbacks.stop_after.iterations=8", "callbacks.stop_after.iterations=4")
    assert run(tmp_path, "module", "config-dir", *ALL, whole, "hydra.run.dir=whole").code == 0
    # Without the callback both runs are of one budget; stopped by it after 4, the other goes on to the end of 8.
    assert run(tmp_path, "module", "config-dir", *ALL, cut, "hydra.run.dir=cut").code == 0
    rows = {name: (tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")}
    losses = {
        name: [row["learn/policy_loss"] for row in map(json.loads, lines) if "learn/policy_loss" in row]
        for name, lines in rows.items()
    }
    assert losses["whole"][:4] == losses["cut"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(OUTSIDE)))}
    options = ("cut", "--episodes", "2", "--allow", "lab")
    done = finish(start(*options, env=environ, cwd=tmp_path, program=("-m", "hsw.eval")), 120)
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["returns"]) == 2


def test_a_study_from_outside_is_swept(tmp_path: Path) -> None:
    small = ("num_train_steps=64", "eval_episodes=1")
    done = run(tmp_path, "module", "searchpath", "experiments=corridors", *small, "allow=[lab]", *QUIET)
    assert done.code == 0, done.err
    jobs = sorted(path.parent.name for path in (tmp_path / "multirun" / "corridors").glob("*/status.json"))
    assert jobs == [
        f"agent-lab+env-corridor+seed-{seed}+storage.cost-{cost}" for seed in (1, 2) for cost in ("0.0", "0.5")
    ]


def test_what_is_not_allowed_is_refused(tmp_path: Path) -> None:
    asked = [argument for argument in ALL if not argument.startswith("allow")]
    done = run(tmp_path, "module", "config-dir", *asked)
    assert done.code == 2
    assert "--allow my_package" in done.err or "--allow lab" in done.err
    assert not (tmp_path / "outputs").exists()
