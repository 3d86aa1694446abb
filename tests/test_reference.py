"""The reference that `make docs` writes has every public class and function, key, command and exit code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
import yaml

from hsw.bounds import Range
from hsw.config.targets import walk_targets
from tests.runs import ROOT, compose

sys.path.append(str(ROOT / "docs"))
from reference_pages import commands, docstrings, pages, sphinx_hooks

CONF = ROOT / "conf"
GROUPS = sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")} - {"."})
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages()


def exported() -> Iterator[tuple[str, str]]:
    """What the packages of hsw have in __all__, and what conf/ names, from their texts alone."""
    for path in (ROOT / "hsw").rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                module = ".".join(path.relative_to(ROOT).parts[:-1])
                yield from ((module, name) for name in ast.literal_eval(node.value))
    for path in CONF.rglob("*.yaml"):
        for _, node in walk_targets(yaml.safe_load(path.read_text())):
            yield tuple(node["_target_"].rsplit(".", 1))  # type: ignore[misc]


# What the design names as public, beyond that.
DESIGNED = {
    "hsw.spaces": ("read_space", "space_config", "SpaceSpec"),
    "hsw.returns": ("gae", "vtrace"),
    "hsw.run.callback": ("Callback",),
    "hsw.run.logger": ("Logger",),
    "hsw.algorithm.intrinsic": ("IntrinsicReward", "CountBonus"),
    "hsw.agent.protocols": ("Learner", "Memory", "ActingPolicy"),
    "hsw.errors": ("ConfigError", "EnvError", "CorruptError", "Interrupted"),
    "hsw.schedule": ("Linear", "Cosine", "Piecewise"),
    "hsw.eval": ("evaluate_run",),
}
PUBLIC = sorted({*exported(), *((module, name) for module, names in DESIGNED.items() for name in names)})


def test_every_public_class_and_function_has_its_place(written: dict[str, str]) -> None:
    text = "".join(page for path, page in written.items() if path.startswith("api/"))
    listed = re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    things = {id(found_at(name)) for name in listed}
    assert [f"{module}.{name}" for module, name in PUBLIC if id(found_at(f"{module}.{name}")) not in things] == []
    assert len(PUBLIC) > 60


def found_at(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def leaves(values: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        inner = f"{path}.{key}".strip(".")
        yield from leaves(value, inner) if isinstance(value, dict) and value else [(inner, value)]


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_a_group_is_there_with_its_values_default_and_meaning(group: str, written: dict[str, str]) -> None:
    page = written[f"keys/{group.replace('/', '-')}.md"]
    for path in (CONF / group).glob("*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        content.pop("defaults", None)
        nodes = [(place, node) for place, node in walk_targets(content) if "." not in place]
        for place, node in nodes:
            for key in node:
                row = rows_of(page, ".".join(filter(None, (group.replace("/", "."), place, key))))
                assert key == "_target_" or (row and all(all(cells[:4]) for cells in row)), f"{path}: {key}"
        if not nodes and "_target_" not in page:
            chosen = page.partition(f"\n## {path.stem}\n")[2].partition("\n## ")[0]
            assert all(f"| `{key}` |" in chosen for key, _ in leaves(content, "")) or group == "env", path


def rows_of(page: str, key: str) -> list[list[str]]:
    """The cells of each row of a key."""
    return [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in page.splitlines() if line.startswith(f"| `{key}` |")]


def test_the_root_s_keys_and_hydra_s_that_hsw_sets_are_there_with_a_meaning(written: dict[str, str]) -> None:
    content = yaml.safe_load((CONF / "config.yaml").read_text())
    content.pop("defaults")
    for key, _ in leaves(content.pop("hydra"), "hydra"):
        ((_, _, meaning),) = rows_of(written["keys/hydra.md"], key)
        assert len(meaning) > 10, key
    for key in content:
        (cells,) = rows_of(written["keys/root.md"], key)
        assert len(cells[3]) > 10, key


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_changes_stands_at_its_keys_and_in_its_own_section(preset: str, written: dict[str, str]) -> None:
    values = yaml.safe_load((CONF / "preset" / f"{preset}.yaml").read_text())
    bases = values.pop("defaults", [])
    own = written["keys/preset.md"].partition(f"\n## {preset}\n")[2].partition("\n## ")[0]
    for key, value in leaves(values, ""):
        group = key.partition(".")[0] if "." in key else "root"
        said = f"[{preset}](preset.md#{preset}) `"
        assert any(said in cells[-1] for cells in rows_of(written[f"keys/{group}.md"], key)), key
        ((_, new, old),) = rows_of(own, key)
        assert yaml.safe_load(new.strip("`")) == value
        assert old.startswith("`"), key
    assert bases or values


def test_a_preset_stands_at_the_keys_of_the_algorithm_that_it_is_for_alone(written: dict[str, str]) -> None:
    at = {cells[-1] for cells in rows_of(written["keys/algorithm.md"], "algorithm.lr")}
    assert any("ppo_cartpole" in one for one in at)
    assert not any("ppo_cartpole" in one and "daac_cartpole" in one for one in at)


@pytest.mark.parametrize("preset", ["ppo_cartpole", "her_sac_fetch_push", "daac_procgen_miner"])
def test_what_a_preset_replaces_is_what_is_composed_without_it(preset: str, written: dict[str, str]) -> None:
    agent, env = re.fullmatch(r"(her_sac|ppo|daac)_(.*?)(?:_miner)?", preset).groups()  # type: ignore[union-attr]
    general: Any = compose(f"agent={agent}", f"env={env}", "~preset")
    own = written["keys/preset.md"].partition(f"\n## {preset}\n")[2].partition("\n## ")[0]
    replaced = re.findall(r"^\| `([\w.]+)` \| `.*` \| `([^|]*)` \|$", own, re.MULTILINE)
    assert len(replaced) >= 4
    for key, value in replaced:
        node = general
        for part in key.split("."):
            node = node._get_node(part) if hasattr(node, "_get_node") else node[part]
        assert str(node._value() if not hasattr(node, "items") else node) in (value, str(yaml.safe_load(value))), key


def errors_in_code() -> dict[str, int]:
    tree = ast.parse((ROOT / "hsw" / "errors.py").read_text())
    found = {}
    for node in tree.body:
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.Assign) and ast.unparse(inner.targets[0]) == "exit_code":
                found[node.name] = ast.literal_eval(inner.value)  # type: ignore[union-attr]
    return found


def test_every_exit_code_is_there(written: dict[str, str]) -> None:
    whole, *by_command = written["exit-codes.md"].split("\n## ")
    codes = errors_in_code()
    assert {2, 3, 4, 5, 6, 7} <= {*codes.values()}
    for name, code in codes.items():
        assert re.search(rf"^\| {code} \| .*`~hsw.errors.{name}`", whole, re.MULTILINE), name
    assert "| 130, 143 |" in whole
    assert [part.partition("\n")[0] for part in by_command] == list(commands.commands())


@pytest.mark.parametrize("module", sorted(commands.commands().values()))
def test_a_command_s_codes_are_those_of_what_it_calls(module: str) -> None:
    """What its own functions, and those of hsw that it takes up by name, say under Raises, its main says too."""
    source = importlib.import_module(module)
    called = [thing for thing in vars(source).values() if getattr(thing, "__module__", None) == module]
    for node in ast.walk(ast.parse(inspect.getsource(source))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hsw."):
            there = importlib.import_module(node.module or "")
            called += [
                vars(there)[alias.name] for alias in node.names if inspect.isfunction(vars(there).get(alias.name))
            ]
    raised = {error for thing in called for error in docstrings.section(thing.__doc__, "Raises")} & {*errors_in_code()}
    assert raised - {"HswError"} <= set(commands.raised_by(module))
    assert "ConfigError" in commands.raised_by(module)


@pytest.mark.parametrize(("name", "module"), sorted(commands.commands().items()))
def test_a_command_s_help_has_its_options(name: str, module: str, written: dict[str, str]) -> None:
    said = written["commands.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    source = Path(str(importlib.util.find_spec(module).origin)).read_text()  # type: ignore[union-attr]
    options = re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", source)
    assert [option for option in options if option not in said] == []
    assert len(said) > 300


def test_every_page_is_in_the_reference_s_index(written: dict[str, str]) -> None:
    listed = re.findall(r"^- \[.*\]\(([\w/-]+\.md)\): \S", written["index.md"], re.MULTILINE)
    assert sorted(listed) == sorted(set(written) - {"index.md"})


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Annotated[float, Range(0, 1)], "number in [0, 1]"),
        (Annotated[int | None, Range(1)], "whole number at least 1 or `null`"),
        (Literal["a", "b"] | None, "`a`, `b` or `null`"),
        (Annotated[list[int], Range(1)], "list (whole number at least 1)"),
        (dict[str, Any], "mapping"),
        (bool, "`true` or `false`"),
        (Path, "an object with `_target_`"),
        (Any, "anything"),
    ],
)
def test_an_annotation_is_told_in_words(hint: Any, words: str) -> None:
    assert docstrings.kind(hint) == words


def near(lr: Annotated[float, Range(0)], eps: float, **rest: Any) -> None:
    """Do something.

    Args:
        lr, eps: Of *both*, which
            `x` has.
        rest: As is.
    """


def test_a_docstring_says_of_each_parameter_what_it_may_be_and_means() -> None:
    assert docstrings.meanings(near) == {
        "lr": "Of *both*, which `x` has.",
        "eps": "Of *both*, which `x` has.",
        "rest": "As is.",
    }
    lines = inspect.cleandoc(near.__doc__ or "").splitlines()
    sphinx_hooks.expand_docstring(None, "function", "near", near, None, lines)
    meaning = [r"Of \*both\*, which", "        ``x`` has."]
    assert lines[3:5] == [f"    lr (number at least 0): {meaning[0]}", meaning[1]]
    assert lines[5:7] == [f"    eps (number): {meaning[0]}", meaning[1]]


def test_files_outside_of_the_documentation_have_pages_whose_links_lead_where_they_led(tmp_path: Path) -> None:
    app = SimpleNamespace(srcdir=str(tmp_path))
    page = tmp_path / "page.md"
    page.write_text(f"[one]({os.path.relpath(ROOT / 'benchmarks' / 'ray_pool.md', tmp_path)})\n")
    sphinx_hooks.write_pages(app)
    place = tmp_path / "reference"
    assert (place / "files" / "benchmarks" / "ray_pool.md.md").read_text().startswith("# ")
    assert "files/benchmarks/ray_pool.md.md" in (place / "files.md").read_text()
    source = [page.read_text()]
    sphinx_hooks.link_files(app, "page", source)
    assert source == ["[one](reference/files/benchmarks/ray_pool.md.md)\n"]


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    options = ["--fail-on-warning", "--fresh-env", "--quiet", "-d", str(tmp_path / "trees")]
    line = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in ("index.html", "reference/api/algorithm.html", "reference/keys/storage.html"):
        assert (tmp_path / "html" / page).stat().st_size > 10_000
