"""What runs left in their folders, read as data: nothing in them is resolved, imported or built."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hsw.analysis.verified import read_verified
from hsw.bounded_yaml import MAX_BYTES, parse
from hsw.directory import Directory, lines_of, read_file
from hsw.errors import ConfigError, CorruptError

METRICS = {
    "return": ("eval/return_mean", "train/episode_return"),
    "success": ("eval/success", "train/success"),
}
_PERHAPS_OF_A_RUN = {"config.yaml", "status.json", "train.log", "run.lock", "versions.json"}  # or of a study
_WITHIN_A_RUN = {"checkpoints", "best", "tensorboard", "wandb", "mlruns"}
_LARGEST = 1e100  # beyond it sums and squares are no numbers
_LARGEST_FILE = 2**22  # bytes, of what is not metrics
_MAX_LEAVES = 20_000  # of a config: YAML's aliases can make a few lines into more than memory holds


class Point(NamedTuple):
    """One figure in time: step in environment steps, seconds of running."""

    step: int
    seconds: float | None
    value: float


@dataclass
class RunResult:
    """One run folder.

    Attributes:
        path: The folder.
        name: How the report calls it.
        status: done, unfinished, interrupted, running, failed, damaged or missing.
        notes: What a reader has to know about it.
        config: The flattened config, values as text; empty if it cannot be read.
        seed, env, budget: Out of the config; env is its id or game.
        versions: Packages, Python, machine and commit, as text.
        command: That made it.
        preset: Whose values it took, or that there was none; None if it does not say.
        steps, seconds: Of its last row.
        speed: Steps per second while it trained, of the median row.
        evaluations, training: The metric over time.
        verified: What a rerun of it has shown, in words; None if there was none.
        score: Of the last evaluation, which is a finished run's only if it is the one at its end.
    """

    path: Path
    name: str
    status: str = ""
    notes: list[str] = field(default_factory=list)
    config: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    env: str | None = None
    budget: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    command: str | None = None
    preset: str | None = None
    steps: int | None = None
    seconds: float | None = None
    speed: float | None = None
    evaluations: list[Point] = field(default_factory=list)
    training: list[Point] = field(default_factory=list)
    score: float | None = None
    verified: str | None = None


def find_studies(folders: Iterable[Path]) -> dict[Path, list[Path]]:
    """The run folders in some folders, by study, in the order of names, numbers by their value.

    A study is a folder with Hydra's multirun.yaml or one in a folder called multirun; a run in neither belongs to the
    folder that was given, and runs given themselves to the folder that they have in common.

    Raises:
        ConfigError: If a folder does not exist or holds no run.
    """
    studies: dict[Path, list[Path]] = {}
    single: list[Path] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder")
        runs = _find_runs(folder)
        if not runs:
            raise ConfigError(f"there is no run in {folder}")
        for run in runs:
            if run.resolve() not in seen:
                seen.add(run.resolve())
                (single if run == folder else studies.setdefault(_study(run, folder), [])).append(run)
    if single:
        common = Path(os.path.commonpath([run.absolute().parent for run in single]))
        studies.setdefault(single[0].parent if len({run.parent for run in single}) == 1 else common, []).extend(single)
    return studies


def _find_runs(folder: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    here = folder.resolve()
    if here in above:  # a symbolic link leads back
        return []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: _natural(entry.name))
    except OSError:
        return [folder]  # reading it as a run will say why
    names = {entry.name for entry in entries}
    if "metrics.jsonl" in names:
        return [folder]
    perhaps = bool(names & _PERHAPS_OF_A_RUN)
    skipped = _WITHIN_A_RUN if perhaps else ()
    inner = [
        entry.name for entry in entries if entry.name not in skipped and entry.name[0] != "." and os.path.isdir(entry)
    ]
    runs = [run for name in inner for run in _find_runs(folder / name, above | {here})]
    return runs or [folder] * perhaps


def _study(run: Path, given: Path) -> Path:
    for folder in run.parents:
        if folder == given or (folder / "multirun.yaml").is_file() or folder.absolute().parent.name == "multirun":
            return folder
    return given


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def read_run(path: Path, metric: str = "return", name: str | None = None) -> RunResult:
    """Read a run folder; whatever is wrong with it becomes its status and notes."""
    run = RunResult(path, name or path.name)
    faults: list[str] = []
    lacks = [file for file in ("config.yaml", "metrics.jsonl") if not os.path.isfile(path / file)]
    evaluated_at = None
    readers: dict[str, Callable[[RunResult], int | None]] = {
        "config.yaml": _read_config,
        "versions.json": _read_versions,
        "metrics.jsonl": lambda run: _read_metrics(run, *METRICS[metric]),
    }
    for file, read in readers.items():
        if not os.path.isfile(path / file):  # a pipe would make us wait
            continue
        try:
            evaluated_at = read(run)  # of the last of the three
        except OSError as error:
            faults.append(f"cannot read {error.filename}: {error.strerror}")
        except (CorruptError, ValueError, RecursionError) as error:  # what is not UTF-8 is a ValueError too
            faults.append(str(error) or type(error).__name__)
    told, run.verified = _told_status(run), read_verified(run.path)
    run.notes += faults + ([f"has no {' and no '.join(lacks)}"] if lacks else [])
    budget = run.budget or 0
    ended = run.steps is not None and run.steps >= budget
    complete = ended and (evaluated_at == run.steps or (told == "done" and evaluated_at is not None))
    if run.evaluations and run.evaluations[-1].step == evaluated_at:
        run.score = run.evaluations[-1].value
    elif evaluated_at is not None:
        run.notes.append(f"its last evaluation has no finite {METRICS[metric][0]}")
    if faults:
        run.status = "damaged"
    elif told in ("failed", "interrupted", "running"):
        run.status = told
        run.notes += ["its metrics are complete"] if complete and not lacks else []
    elif lacks:
        run.status = "missing"
    else:
        run.status = "done" if complete else "unfinished"
        if not complete:
            run.notes.append("no evaluation at its end" if ended else f"{run.steps or 0:,} of {budget:,} steps")
    return run


def _read_config(run: RunResult) -> None:
    try:
        tree = parse(read_file(run.path, "config.yaml", MAX_BYTES))
    except ValueError as error:
        raise ValueError(f"config.yaml {error}") from error
    if not isinstance(tree, dict):
        raise ValueError("config.yaml is not a config")
    seed, budget, env = tree.get("seed"), tree.get("num_train_steps"), tree.get("env")
    if type(seed) is not int or type(budget) is not int or not isinstance(env, dict):
        raise ValueError("config.yaml has no seed, no num_train_steps or no env")
    flat: dict[str, str] = {}
    for key, value in _leaves(tree):
        flat[key] = value
        if len(flat) > _MAX_LEAVES:
            raise ValueError(f"config.yaml has more than {_MAX_LEAVES} values")
    if "preset" in tree:
        run.preset = str(tree["preset"]) if tree["preset"] else "none, general values"
    place = env.get("id") or env.get("game") or env.get("_target_") or "?"
    run.config, run.seed, run.budget, run.env = flat, seed, budget, str(place).rpartition(":")[2]


def _leaves(node: dict[Any, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        inner = f"{path}{key}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{inner}.")
        elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
            yield from _leaves(dict(enumerate(value)), f"{inner}.")
        elif isinstance(value, list):
            yield inner, f"[{','.join(map(_text, value))}]"
        else:
            yield inner, _text(value)


def _text(value: Any) -> str:
    """As it would be typed on the command line: 1, 1.0 and true are three values."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_versions(run: RunResult) -> None:
    """The versions of the last session, and the command of the first; 0.1.0 told of one session only."""
    try:
        told = json.loads(read_file(run.path, "versions.json", _LARGEST_FILE))
    except (CorruptError, ValueError, RecursionError):
        told = None
    sessions = told if isinstance(told, list) else [told]
    if not sessions or not all(isinstance(session, dict) for session in sessions):
        run.notes.append("versions.json is not JSON")  # the figures do not rest on it
        return
    described = [_versions_of(session) for session in sessions]
    run.versions = described[-1]
    for name in dict.fromkeys(name for one in described for name in one):
        values = list(dict.fromkeys(one[name] for one in described if name in one))
        if len(values) > 1:
            run.notes.append(f"its sessions had different {name}: {', '.join(values)}")
    command = sessions[0].get("command")
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        name = Path(command[0]).name
        begin = ["python", "-m", "hsw.train"] if name == "train.py" else [name]
        run.command = shlex.join([*begin, *command[1:]])


def _versions_of(session: dict[str, Any]) -> dict[str, str]:
    """What a session ran with, as text; of the user's repository its commit."""
    beside = ("command", "began", "repository", "settings")
    versions = {key: str(value) for key, value in session.items() if key not in beside}
    repository = session.get("repository")
    if isinstance(repository, dict) and "commit" in repository:
        versions["repository"] = f"{repository['commit']}{' with changes' * bool(repository.get('changed'))}"
    return versions


def _told_status(run: RunResult) -> str | None:
    """What the sweep wrote about the job, if it did."""
    path = run.path / "status.json"
    if not os.path.isfile(path):
        return None
    try:
        told = json.loads(read_file(run.path, "status.json", _LARGEST_FILE))
        status = told["status"]
    except (CorruptError, OSError, ValueError, TypeError, KeyError, RecursionError):
        run.notes.append("status.json cannot be read")
        return None
    run.notes += [told["error"]] if isinstance(told.get("error"), str) else []
    return status if isinstance(status, str) else None


def _read_metrics(run: RunResult, eval_key: str, train_key: str) -> int | None:
    """Returns the step of the last evaluation, whatever it measured."""
    fault, evaluated_at = None, None
    speeds: list[float] = []
    with (
        Directory.open(run.path) as directory,
        os.fdopen(directory.open_file("metrics.jsonl", os.O_RDONLY), "rb") as file,
    ):
        for number, line in enumerate(lines_of(file), 1):
            try:
                row = json.loads(line)
                step, seconds = row["step"], _number(row.get("time"))
                if type(step) is not int or not (run.steps or 0) <= step < 2**63:
                    raise ValueError
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                if line.endswith(b"\n"):
                    fault = fault or ValueError(f"line {number} of metrics.jsonl is not a row of metrics")
                else:
                    run.notes.append("the last line of metrics.jsonl is torn")
                continue
            run.steps, run.seconds = step, seconds
            speed = _number(row.get("speed/steps_per_second"))
            speeds += [] if speed is None else [speed]
            if any(key.startswith("eval/") for key in row):
                evaluated_at = step
            for key, points in ((eval_key, run.evaluations), (train_key, run.training)):
                value = _number(row.get(key))
                if value is not None:
                    points.append(Point(step, seconds, value))
    run.speed = statistics.median(speeds) if speeds else None
    if fault:
        raise fault
    return evaluated_at


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
        return None
    return None if math.isnan(value) else float(value)
