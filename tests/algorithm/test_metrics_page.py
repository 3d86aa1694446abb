"""docs/metrics.md has every metric that is logged, by whom, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from hsw.algorithm import A2C, DAAC, PPO
from tests.algorithm import test_dqn, test_impala, test_rnd, test_sac, test_td3
from tests.algorithm.naive import collected
from tests.runs import ROOT, call, rows, run_dir, tiny_run

PAGE = (ROOT / "docs/metrics.md").read_text()
# Not of a discrete policy's update, and of the loop.
ELSEWHERE = {"std", "policy_lag"}


def documented(section: str) -> set[str]:
    """The names of a section, in each cell of its first column."""
    text = PAGE.partition(f"\n## {section}/\n")[2].partition("\n## ")[0]
    first = "".join(re.findall(r"^\|([^|]+)\|", text, re.MULTILINE))
    return set(re.findall(rf"`{section}/(\w+)`", first))


def told_by(letter: str) -> set[str]:
    found = re.findall(r"^\| `learn/(\w+)` \| ([A-Z ]+?) \|", PAGE, re.MULTILINE)
    return {name for name, letters in found if letter in letters.split()}


def rnd_update() -> dict[str, float]:
    rnd, part = test_rnd.make_rnd(), test_rnd.transitions()
    rnd.observe(part)
    return rnd.update(part)


UPDATES: dict[str, Any] = {
    **{letter: lambda kind=kind: (lambda a, s: a.update(s))(*collected(kind)) for letter, kind in
       {"P": PPO, "D": DAAC, "A": A2C}.items()},
    "S": lambda: test_sac.make().update(test_sac.Fixed(test_sac.batch_of())),
    "T": lambda: test_td3.make(policy_delay=1).update(test_sac.Fixed(test_sac.batch_of())),
    "Q": lambda: test_dqn.make().update(test_dqn.Fixed(test_dqn.batch_of())),
    "I": lambda: test_impala.make("box").update(test_impala.One(test_impala.batch_of("box"))),
    "R": rnd_update,
}  # fmt: skip


@pytest.mark.parametrize("letter", UPDATES)
def test_the_page_has_what_an_update_tells_and_no_more(letter: str) -> None:
    told = set(UPDATES[letter]())
    assert told - told_by(letter) == set()
    assert told_by(letter) - told <= ELSEWHERE


def written_in(*folders: str) -> list[ast.AST]:
    paths = [path for folder in folders for path in sorted(Path(ROOT, "hsw", folder).glob("*.py"))]
    return [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]


def test_the_page_has_every_figure_that_an_algorithm_names() -> None:
    """Also one that comes under rare conditions: the keys of what functions return as figures."""
    named: set[str] = set()
    for node in written_in("algorithm"):
        if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) == "dict[str, float]":
            for inner in ast.walk(node):
                keys = inner.keys if isinstance(inner, ast.Dict) else []
                named |= {key.value for key in keys if isinstance(key, ast.Constant) and "lambda" not in str(key.value)}
    # Of a mapping from names to parameters, which is no figure.
    assert named - {"all", "values", "critics", "actor"} <= documented("learn")
    assert len(named) > 20


@pytest.mark.parametrize("section", ["train", "eval", "speed", "storage"])
def test_the_page_has_every_name_that_the_loops_write(section: str) -> None:
    texts = {
        node.value for node in written_in("agent") if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    named = {text.partition("/")[2] for text in texts if re.fullmatch(rf"{section}/\w+", text)} - {"return_"}
    if section == "speed":
        laps = [
            node for node in written_in("agent") if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        phases = [node.args[0] for node in laps if node.func.attr in ("lap", "mark") and node.args]
        named |= {f"{phase.value}_share" for phase in phases if isinstance(phase, ast.Constant)}
    if section == "eval":
        named |= {f"return_{name}" for name in ("mean", "std", "min", "max")}
    assert named == documented(section)


def test_the_page_has_every_statistic_of_the_pools() -> None:
    named: set[str] = {"rows"}
    for node in written_in("agent"):
        if isinstance(node, ast.FunctionDef) and node.name == "statistics":
            named |= {key.value for part in ast.walk(node) if isinstance(part, ast.Dict) for key in part.keys
                      if isinstance(key, ast.Constant)}  # fmt: skip
    ray = next(
        node
        for node in written_in("agent")
        if isinstance(node, ast.Assign) and "_totals" in ast.unparse(node.targets[0])
    )
    named |= set(re.findall(r"'(\w+)'", ast.unparse(ray.value)))
    assert named - {"waited"} == documented("pool")  # that is speed/actors_idle


@pytest.mark.parametrize("recipe", ["ppo_rnd", "her_dqn"])
def test_a_run_logs_no_name_that_the_page_lacks(recipe: str, tmp_path: Path) -> None:
    assert call(*tiny_run(recipe), "num_train_steps=64", run_dir(tmp_path)).code == 0
    known = {
        f"{section}/{name}"
        for section in ("learn", "train", "eval", "speed", "storage")
        for name in documented(section)
    }
    logged = {name for row in rows(tmp_path) for name in row}
    assert logged - known <= {"step", "time", "run"}
