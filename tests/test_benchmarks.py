"""What the benchmarks decide: whether a figure may be published, and whether a preset has regressed."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import load, run
from benchmarks.presets import Preset, Verdict, comparable, judge, presets, table, within
from hsw import compose


@pytest.mark.parametrize(
    ("released", "now", "decision"),
    [
        ([500, 500, 500], [500, 500, 500], "ok"),
        ([500, 500, 500], [476, 476, 476], "ok"),  # -4.8 %, without doubt
        ([500, 500, 500], [474, 474, 474], "regressed"),  # -5.2 %, without doubt
        ([500, 490, 510], [400, 390, 410], "regressed"),
        ([500, 490, 510], [460, 300, 500], "ok"),  # lower, and it may be by chance
        ([-150, -148, -152], [-200, -201, -199], "regressed"),  # a score below 0 is worse the lower it is
        ([-150, -148, -152], [-100, -101, -99], "better"),
        ([0.0, 0.0], [0.0, 0.0], "ok"),
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], "regressed"),
        ([], [1.0, 2.0], "new"),
        ([5.0], [1.0, 1.0], "too few"),
    ],
)
def test_a_preset_has_regressed_where_the_whole_interval_is_below_minus_5_percent(
    released: list[float], now: list[float], decision: str
) -> None:
    assert judge(released, now).decision == decision


def test_the_interval_is_welchs() -> None:
    """By hand: means 10 and 9, variances 1 and 4 of three each, error sqrt(5/3), 25 / 8.5 degrees of freedom."""
    verdict = judge([9, 10, 11], [7, 9, 11])
    half = 3.2203 * (5 / 3) ** 0.5  # t of .975 at 2.9412 degrees of freedom
    assert verdict.difference == pytest.approx(-0.1)
    assert (verdict.low, verdict.high) == pytest.approx(((-1 - half) / 10, (-1 + half) / 10), rel=1e-3)


def test_scores_of_another_length_of_training_are_not_compared() -> None:
    row = {"figure": "return", "steps": 1000, "scores": [1.0]}
    assert comparable({**row, "scores": [2.0]}, row) == [2.0]
    assert comparable({**row, "steps": 2000}, row) == []
    assert comparable({**row, "figure": "success"}, row) == []
    assert comparable(None, row) == []


def test_every_preset_is_trained_with_its_own_values() -> None:
    found = presets({"ppo_cartpole": {"seconds": 1.0}})
    names = {path.stem for path in Path("conf/preset").glob("*.yaml")}
    assert {preset.name for preset in found} == names
    assert found[0].name == "ppo_cartpole"
    assert [preset.seconds for preset in found] == sorted(preset.seconds for preset in found)
    unlike = "daac_procgen_bigfish", "her_sac_bit_flipping", "recurrent_ppo_cartpole_positions", "ppo_minatar_breakout"
    for preset in (one for one in found if one.name in unlike):
        assert compose(list(preset.overrides)).preset == preset.name


def test_presets_are_trained_the_shortest_first_as_long_as_the_budget_lasts() -> None:
    found = [Preset(name, (), "return", seconds) for name, seconds in (("a", 10), ("b", 20), ("c", 100))]
    now = [0.0]
    trained: list[tuple[str, int]] = []

    def train(preset: Preset, seed: int) -> tuple[float, int]:
        now[0] += preset.seconds
        trained.append((preset.name, seed))
        return float(seed), 7

    rows, left_out = within(80.0, found, (1001, 1002), 1, train, lambda: now[0])
    assert trained == [("a", 1001), ("a", 1002), ("b", 1001), ("b", 1002)]
    assert left_out == ["c"]
    assert rows["b"]["scores"] == [1001.0, 1002.0]
    assert rows["b"]["seconds"] == 20.0
    shown = table(rows, {"a": Verdict("new"), "b": Verdict("regressed", -0.1, -0.2, -0.06)}, left_out, "0.1.0")
    assert "| b | 2 | return 1002 | -10.0% (-20.0% to -6.0%) | regressed |" in shown
    assert "Not within the budget: c." in shown


_BURN = "import sys, time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


def test_the_load_is_what_others_use_and_not_this_process_or_its_children() -> None:
    """What another process burns is not of this machine's quiet; so a share that nobody else can have is told apart."""
    with load.Besides() as besides:
        before = load._own()
        child = subprocess.Popen([sys.executable, "-c", _BURN.format(0.3)])
        time.sleep(0.2)
        alive = load._own()
        child.wait()
        after = load._own()
    assert before < alive < after
    assert besides.load >= 0


def test_a_figure_measured_beside_others_is_published_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"load": 0.2}

    def measured(side: Any, quick: bool) -> dict[str, Any]:
        return {"value": 2.0, "versions": {"hsw": "1"}, **others}

    monkeypatch.setattr(run, "measure", measured)
    out = tmp_path / "results.json"
    command = ["run", "gae/128x8", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    run.main()
    assert json.loads(out.read_text())["comparisons"]["gae/128x8"]["hsw"]["median"] == 2.0
    others["load"] = 0.9
    out.unlink()
    with pytest.raises(SystemExit, match="not published: gae/128x8"):
        run.main()
    assert not out.exists()
    assert "others used 0.9 cores while it was measured, above 0.5" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--loaded"])
    run.main()
    assert "| 0.9/0.9 |" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize("path", sorted(Path(load.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_takes_of_hsw_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("hsw", "benchmarks"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(f"{node.module}.{alias.name}")
                assert hasattr(module, alias.name), f"line {node.lineno}: {node.module}.{alias.name}"
