"""The floors of the house: a module imports from its own floor and from those below."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hsw

ROOT = Path(hsw.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
GROUND = {"", "append_log", "bounded_yaml", "bounds", "deadline", "device", "directory", "ending", "errors", "moments"}
GROUND |= {
    "output",
    "ranks",
    "returns",
    "schedule",
    "secrets",
    "seeding",
    "signatures",
    "spaces",
    "template",
    "transfer",
}
GROUND |= {"memory", "recycling", "turns"}
ENTRY = {path.stem for path in ROOT.glob("*.py")} - GROUND - {"__init__"}
# From the ground upwards; the rooms of one floor do not import one another.
FLOORS = [
    {"env", "network", "storage", "run", "analysis"},
    {"algorithm"},
    {"agent"},
    {"config"},
    {"cli"},
    {"sweep", "build"},
    {"trained", "learners", "done", "rerun"},
    {"tuning", "exporting"},
    {"api"},
    {"checking"},
]
KNOW_HYDRA = {"config", "cli", "sweep", "build", "trained", "learners", "rerun"}
KNOW_HYDRA |= {"tuning", "exporting", "checking", *ENTRY}


def imports(path):
    """Full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "hsw")


def part(name):
    """The folder or top module of a dotted name: hsw.env.vector -> env."""
    return name.split(".")[1] if "." in name else ""


def allowed(owner):
    if owner in GROUND:
        return GROUND
    floor = next((i for i, rooms in enumerate(FLOORS) if owner in rooms), len(FLOORS))
    return GROUND | {owner} | set().union(*FLOORS[:floor])


def owner_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0].replace("__init__", "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_upward(path):
    owner = owner_of(path)
    if path == ROOT / "__init__.py":  # hands on what the entry level has, once somebody asks
        owner = "api"
    wrong = [name for name in imports(path) if name.split(".")[0] == "hsw" and part(name) not in allowed(owner)]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_imports_go_in_a_circle():
    """A package's __init__ hands on what its modules have, and may: it is no module's neighbour but its own."""
    modules = {module_of(path) for path in FILES if path.name != "__init__.py"}
    uses = {module_of(path): set(imports(path)) & modules for path in FILES if path.name != "__init__.py"}
    while leaves := {module for module, used in uses.items() if not used & uses.keys()}:
        uses = {module: used for module, used in uses.items() if module not in leaves}
    assert not uses, f"these import one another: {sorted(uses)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hydra_is_known_from_config_upwards(path):
    owner = owner_of(path)
    packages = {name.split(".")[0] for name in imports(path)}
    assert "hydra" not in packages or owner in KNOW_HYDRA
    assert "omegaconf" not in packages or owner in KNOW_HYDRA | {"spaces"}


def test_every_folder_has_its_floor():
    assert {folder.parent.name for folder in ROOT.glob("*/__init__.py")} <= set().union(*FLOORS)


def test_importing_the_entry_point_loads_neither_torch_nor_wandb():
    code = "import sys, hsw.train; print([m for m in ('torch', 'wandb', 'gymnasium', 'envpool') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_everything_starts_no_cuda_and_stays_in_the_folder():
    names = [".".join(("hsw", *path.relative_to(ROOT).with_suffix("").parts)) for path in FILES]
    code = (
        f"import importlib, os; before = os.getcwd(); [importlib.import_module(n) for n in {names}];"
        "import torch; print(torch.cuda.is_initialized(), os.getcwd() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
