"""A run that is run again, from its folder alone, and what is found where it does not come out the same."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsw import report, verify
from hsw.errors import ConfigError
from hsw.rerun.again import StopAt
from hsw.rerun.compare import differences, digest
from hsw.run.checkpoint import read_state, write_state
from hsw.run.folder import RunFolder, UnownedFolder
from tests.runs import ROOT, call, rows, run_dir, start, tiny_run, wait_for

KEPT = ("checkpoint_interval=50", "checkpoint_keep=10", "eval_interval=60")


def verified(folder: Path, *arguments: str) -> Any:
    return call(str(folder), "--allow", "tests", *arguments, main=verify.cli)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs, each trained once; a test gets a copy."""
    folders: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("runs")

    def copy(recipe: str, to: Path, *overrides: str) -> Path:
        name = "-".join((recipe, *overrides)).replace("/", "")
        if name not in folders:
            folders[name] = root / name
            result = call(*tiny_run(recipe), *KEPT, *overrides, run_dir(folders[name]))
            assert result.code == 0, result.err
        shutil.copytree(folders[name], to / "run")
        return to / "run"

    return copy


def fingerprints(folder: Path) -> dict[str, Any]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "recipe",
    ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("daac", "sac", "her_sac", "dqn", "td3", "a2c"))],
)
def test_a_run_is_verified_and_its_folder_is_left_as_it_was(recipe: str, made: Any, tmp_path: Path) -> None:
    folder = made(recipe, tmp_path)
    before = fingerprints(folder)
    result = verified(folder)
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["verified"] is True
    assert [one["result"] for one in told["segments"]] == ["same"] * len(told["checkpoints"])
    assert sum(one["rows"] for one in told["segments"]) == len(rows(folder))
    assert all(one["saved"] == one["rerun"] for one in told["segments"])
    assert {"torch", "python", "cpu"} <= set(told["with"])
    stored = folder / "verified.json"
    assert json.loads(stored.read_text()) == told
    stored.unlink()
    assert fingerprints(folder) == before


def changed_weight(folder: Path, number: int, key: str = "policy", index: int = 3) -> str:
    """Change one weight of a checkpoint and sign it again. Returns its name and index."""
    path = sorted((folder / "checkpoints").glob("0*"))[number]
    state, meta = read_state(path)
    name = next(name for name, tensor in state[key].items() if tensor.is_floating_point() and tensor.numel() > index)
    state[key][name].view(-1)[index] += 1e-3
    rows_before = json.loads((path / "manifest.json").read_text())["rows"]
    write_state(path, state, meta)
    assert set(json.loads((path / "manifest.json").read_text())["rows"]) == set(rows_before)
    place = np.unravel_index(index, state[key][name].shape)
    return f"{key}/{name}[{', '.join(map(str, place))}]"


@pytest.mark.parametrize(("recipe", "number"), [("ppo", 1), ("sac", -1)])
def test_one_weight_that_was_changed_is_named(recipe: str, number: int, made: Any, tmp_path: Path) -> None:
    folder = made(recipe, tmp_path)
    name = changed_weight(folder, number)
    step = json.loads((sorted((folder / "checkpoints").glob("0*"))[number] / "manifest.json").read_text())["meta"][
        "step"
    ]
    result = verified(folder)
    assert result.refused(7, name, f"step {step}", "1 of its")
    assert json.loads((folder / "verified.json").read_text())["verified"] is False


@pytest.mark.slow
def test_a_segment_that_begins_with_a_changed_checkpoint_says_so(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    changed_weight(folder, -2)
    last = len(list((folder / "checkpoints").glob("0*"))) - 1
    seed = next(seed for seed in range(100) if random.Random(seed).sample(range(last + 1), 1) == [last])
    assert verified(folder, "--segments", "1", "--seed", str(seed)).refused(7, "where this segment begins", "--all")


def test_one_row_that_was_changed_is_named(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if n > 2 and "learn/policy_loss" in line)
    row = json.loads(lines[number])
    before, row["learn/policy_loss"] = row["learn/policy_loss"], 0.123456789
    lines[number] = json.dumps(row) + "\n"
    (folder / "metrics.jsonl").write_text("".join(lines))
    result = verified(folder)
    words = f"row {number + 1} of metrics.jsonl (step {row['step']})", "learn/policy_loss is 0.123456789", repr(before)
    assert result.refused(7, *words)
    assert [one["result"] for one in json.loads(result.out)["segments"]].count("different") == 1


@pytest.mark.slow
@pytest.mark.parametrize("place", ["first", "evaluation", "last"])
def test_one_row_that_was_deleted_is_missed(place: str, made: Any, tmp_path: Path) -> None:
    folder = made("sac", tmp_path)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    number = {"first": 0, "last": -1}.get(place) if place != "evaluation" else None
    if number is None:
        number = next(n for n, line in enumerate(lines) if "eval/" in line)
    gone = json.loads(lines.pop(number))
    (folder / "metrics.jsonl").write_text("".join(lines))
    assert verified(folder).refused(7, f"step {gone['step']}")


def test_a_resume_with_another_budget_and_a_stop_within_a_rollout_are_verified(tmp_path: Path) -> None:
    options = (*KEPT, run_dir(tmp_path))
    assert call(*tiny_run("ppo"), *options, "num_train_steps=60").code == 0
    assert call(f"resume={tmp_path}", "num_train_steps=110", "checkpoint_interval=35").code == 0
    result = verified(tmp_path)
    assert result.code == 0, result.err
    assert all(one["result"] == "same" for one in json.loads(result.out)["segments"])
    shutil.rmtree(tmp_path / "checkpoints" / "000001")
    shutil.rmtree(tmp_path / "checkpoints" / "000002")
    told = json.loads(verified(tmp_path).out)
    assert told["segments"][0]["result"] == "not run"
    assert "another budget" in told["segments"][0]["why"]


def test_a_damaged_checkpoint_is_named_and_the_rest_is_verified(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    path = sorted((folder / "checkpoints").glob("0*"))[1] / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = verified(folder, "--segments", "1")
    assert result.refused(7, path.parent.name, "checksum")


@pytest.mark.parametrize("recipe", ["impala"])
def test_a_run_that_goes_no_way_twice_says_why_and_is_checked_as_far_as_it_can_be(
    recipe: str, made: Any, tmp_path: Path
) -> None:
    folder = made(recipe, tmp_path)
    result = verified(folder)
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert (told["verified"], told["segments"]) == (None, [])
    assert "not in step" in told["inexact"]
    assert "the newest one loads" in told["checked"]


@pytest.mark.slow
def test_environments_that_cannot_be_restored_are_said(tmp_path: Path) -> None:
    pytest.importorskip("envpool")
    assert call(*tiny_run("ppo"), *KEPT, "env.backend=native", run_dir(tmp_path)).code == 0
    assert "cannot be restored" in json.loads(verified(tmp_path).out)["inexact"]


@pytest.mark.slow
def test_rows_out_of_order_are_named_also_where_nothing_can_be_run_again(made: Any, tmp_path: Path) -> None:
    folder = made("impala", tmp_path)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[::-1]))
    assert verified(folder).refused(7, "of metrics.jsonl is of step", "after one of step")


@pytest.mark.slow
def test_another_version_is_the_probable_cause_of_a_difference(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    sessions = json.loads((folder / "versions.json").read_text())
    sessions[-1]["torch"] = "1.2.3"
    (folder / "versions.json").write_text(json.dumps(sessions))
    changed_weight(folder, -1)
    assert verified(folder).refused(7, "probable cause", "torch 1.2.3 there")


def reported(folder: Path, kind: str = "json") -> Any:
    # Through the command, whose stderr is not pytest's: a library of the report's keeps it, and closes it later.
    return call(str(folder), "--no-curves", "--format", kind, main=report.cli).out


def test_the_report_shows_what_was_verified_for_as_long_as_it_holds(made: Any, tmp_path: Path) -> None:
    shown = lambda: json.loads(reported(folder))["studies"][0]["runs"][0]["verified"]
    folder = made("ppo", tmp_path)
    assert shown() is None
    assert verified(folder, "--segments", "1").code == 0
    number = len(list((folder / "checkpoints").glob("0*")))
    words = f"1 of {number} segments to step {rows(folder)[-1]['step']} come out bit for bit"
    assert shown() == words
    assert all(words in reported(folder, kind) for kind in ("md", "csv"))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999}\n')
    assert "has changed" in shown()
    (folder / "verified.json").write_text('{"segments": [3]}')
    assert shown() == "verified.json cannot be read"


@pytest.mark.slow
def test_a_run_that_is_under_way_is_refused(tmp_path: Path) -> None:
    process = start(*tiny_run("ppo"), *KEPT, run_dir(tmp_path / "run"), "num_train_steps=10000000")
    try:
        wait_for(lambda: (tmp_path / "run" / "checkpoints" / "000001").exists())
        assert verified(tmp_path / "run").refused(2, "is in use by process", str(process.pid))
        assert not (tmp_path / "run" / "verified.json").exists()
    finally:
        process.kill()
        process.communicate()


def test_nobody_goes_on_with_a_run_while_it_is_verified(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    with contextlib.closing(UnownedFolder(folder)) as held, contextlib.closing(UnownedFolder(folder)) as other:
        held.hold()
        other.hold()
        with pytest.raises(ConfigError, match="in use"):
            RunFolder(folder)
    RunFolder(folder).close()


def test_rows_after_the_last_checkpoint_of_a_killed_run_are_verified(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    kept = sorted((folder / "checkpoints").glob("0*"))
    for path in kept[1:]:
        shutil.rmtree(path)
    told = json.loads(verified(folder).out)
    assert (told["verified"], told["segments"][-1]["to"]) == (True, None)
    assert sum(one["rows"] for one in told["segments"]) == len(rows(folder))
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace('"eval/length": ', '"eval/length": 1'))
    assert verified(folder).refused(7, "eval/length is 1")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ppo", "daac", "sac", "her_sac", "impala"])
def test_a_run_of_an_older_hsw_is_verified_or_refused_in_a_sentence(recipe: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "runs-0.1.0" / recipe, tmp_path / "run")
    result = verified(tmp_path / "run")
    assert result.code == 0 or result.refused(7, "not verified")


def test_a_link_in_place_of_the_result_is_refused(made: Any, tmp_path: Path) -> None:
    folder = made("ppo", tmp_path)
    (tmp_path / "precious").write_text("mine")
    (folder / "verified.json").symlink_to(tmp_path / "precious")
    assert verified(folder, "--segments", "1").refused(7, "verified.json")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere",), 2, ("there is no run in nowhere",)),
        ((".", "--segments", "0"), 2, ("--segments=0", "at least 1")),
        ((".", "--all", "--segments", "2"), 2, ("not allowed with",)),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: Any, code: int, words: Any) -> None:
    assert call(*arguments, main=verify.cli).refused(code, *words)


@pytest.mark.parametrize("command", ["hsw.verify", "hsw.replay"])
def test_help_needs_no_torch(command: str) -> None:
    code = f"import sys, runpy; sys.argv = ['x', '--help']; runpy.run_module('{command}', run_name='__main__'); "
    code += "print('torch' in sys.modules, 'gymnasium' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().endswith("False False")
    assert "--allow" in done.stdout


def test_states_are_compared_by_their_bits() -> None:
    one = {"a": torch.tensor([[0.0, float("nan")], [1.0, 2.0]]), "b": [1, {"c": 0.1}]}
    assert list(differences(one, {"a": one["a"].clone(), "b": [1, {"c": 0.1}]})) == []
    other = {"a": torch.tensor([[-0.0, float("nan")], [1.0, 3.0]]), "b": [1, {"c": 0.1 + 1e-17}]}
    found, second = differences(one, other)
    assert (second.key, second.index) == ("b/1/c", None)
    assert (found.key, found.index, found.count, found.of) == ("a", (0, 0), 2, 4)
    assert [found.key for found in differences({"a": 1}, {"b": 1})] == ["a", "b"]
    assert [str(found) for found in differences({"a": {"b": 1}}, {"a": {"b": True}})] == [
        "a/b is 1 and comes out as True"
    ]
    assert digest(one) != digest(other)


def test_a_stop_is_asked_for_once_the_condition_holds_and_from_then_on() -> None:
    calls = iter([False, False, True])
    stop = StopAt(lambda: next(calls))
    assert [stop.requested for _ in range(5)] == [None, None, 15, 15, 15]
    user = StopAt(lambda: False)
    user.requested = 2
    assert user.requested == 2
    assert not user.reached
