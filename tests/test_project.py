"""What carries on the work: the workflow, hooks, templates, citation and CONTRIBUTING name what there is."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsw import __version__
from tests.release_check import commands, shipped
from tests.runs import ROOT

TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def make_targets(text: str) -> set[str]:
    """Where a command is meant: in code, or at a line's beginning."""
    return set(re.findall(r"(?:^|`)(?:\w+=\S+ )?make ([a-z0-9-]+)(?=[ `\n])", text, re.MULTILINE))


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    workflow = read(".github/workflows/ci.yml")
    assert workflow[True] == {"push": {"branches": ["main"]}, "pull_request": None}  # YAML reads "on" as true
    found: dict[str, Any] = workflow["jobs"]
    return found


def test_the_workflow_runs_ci_run_and_both_hydras_on_every_python(jobs: dict[str, Any]) -> None:
    matrix, steps = jobs["test"]["strategy"]["matrix"], jobs["test"]["steps"]
    assert matrix == {"python": ["3.11", "3.12", "3.13"], "hydra": ["1.3", "1.4"]}
    runs = {step["if"]: step["run"] for step in steps if "run" in step}
    assert runs == {"matrix.hydra == '1.3'": ".ci/run", "matrix.hydra == '1.4'": "make test-hydra14"}
    for pins, series in (("constraints.txt", "1.3"), ("constraints-hydra14.txt", "1.4")):
        assert re.search(rf"^hydra-core=={series}\.", (ROOT / pins).read_text(), re.MULTILINE)


def test_what_the_workflow_and_ci_run_call_is_there(jobs: dict[str, Any]) -> None:
    called = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    for command in called:
        name, *rest = shlex.split(command)
        assert (name == "make" and set(rest) <= TARGETS) or (ROOT / name).stat().st_mode & 0o100
    assert {"make docs", "make release-check"} <= {*called}
    assert make_targets((ROOT / ".ci/run").read_text()) <= TARGETS


def test_hooks_run_tools_of_the_extra_dev() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    tools = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert tools == {"ruff", "mypy"}
    assert tools | {"pre-commit", "build"} <= {re.split(r"[\[<>=]", one)[0] for one in EXTRAS["dev"]}
    assert all(hook["language"] == "system" and hook["id"] and hook["name"] for hook in repository["hooks"])


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_has_what_github_wants(form: str) -> None:
    found = read(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert found["name"]
    assert found["description"]
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in found["body"])
    names = [part["id"] for part in found["body"]]
    assert len(names) == len(set(names))


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_contributing_names_targets_and_files_that_there_are() -> None:
    for name in ("CONTRIBUTING.md", ".github/PULL_REQUEST_TEMPLATE.md"):
        text = (ROOT / name).read_text()
        assert make_targets(text) <= TARGETS
        named = re.findall(r"`((?:hsw|tests|conf|docs|experiments|benchmarks)/[\w/.-]*)`", text)
        assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_package_of_the_docs_is_pinned() -> None:
    pins = {normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = [normal(re.split(r"[<>=]", one)[0]) for one in EXTRAS["docs"]]
    assert set(wanted) <= pins
    assert all("==" in line for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_release_is_tried_with_the_commands_of_the_readme() -> None:
    found = commands()
    modules = {word for line in found for word in line.split() if word.startswith("hsw.")}
    assert modules == {"hsw.train", "hsw.eval", "hsw.report", "hsw.verify", "hsw.export"}
    assert any(line.startswith("python -m hsw.train resume=outputs/tour") for line in found)


def test_the_wheel_is_to_have_the_page_s_licence_and_every_config() -> None:
    names = shipped()
    configs = [path for path in Path(ROOT, "conf").rglob("*.yaml") if "experiments" not in path.parts]
    assert {f"hsw/{path.relative_to(ROOT)}" for path in configs} <= {*names}
    assert "hsw/conf/experiments/all_agents.yaml" in names
    assert "hsw/analysis/page/static/LICENSE.uPlot" in names
