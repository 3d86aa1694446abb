"""Report on run folders, offline: python -m hsw.report <folders> [--format text|md|html|csv|json] [--out PLACE].

Which runs there are, how they ended, what varied between them, and the statistics of Agarwal et al. 2021
(arXiv:2108.13264) on the last evaluations.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hsw.analysis.comparison import compare
from hsw.analysis.curves import draw
from hsw.analysis.groups import Group, group_runs, keep_common
from hsw.analysis.report_data import Report, RunRow, Study
from hsw.analysis.results import METRICS, RunResult, find_studies, read_run
from hsw.analysis.score_ranges import Ranges, check_ranges, read_ranges, read_ranges_file
from hsw.analysis.writing import FORMS, seen_from, target, text_of, watch, write, write_page
from hsw.cli.main import Parser, run_main
from hsw.errors import ConfigError


def report(
    folders: Iterable[Path | str],
    metric: str = "return",
    threshold: float | None = None,
    ranges: Ranges | None = None,
    spare_ranges: Ranges | None = None,
    unfinished: bool = False,
    out: Path | None = None,
    curves: bool = True,
    reps: int = 2000,
    seed: int = 0,
) -> Report:
    """Read runs and compare their groups.

    Args:
        folders: Run folders, or folders that hold some at any depth.
        metric: "return" or "success", of the last evaluation.
        threshold: In the unit of a table's scores: when runs reached it, and what the optimality gap is measured from
            where scores are not normalised.
        ranges: Scores that become 0 and 1, by environment. A study whose environments all have one gets one table over
            them, as tasks; otherwise each environment has a table.
        spare_ranges: The same, also for environments that were perhaps not run; `ranges` win.
        unfinished: Also count runs that did not end, at their last evaluation.
        out: Where the curves go; None is each study's folder, if it is among the folders or within them.
        curves: Draw them.
        reps, seed: Of the bootstrap.

    Returns:
        The studies, each with its runs, its tables and what varied.

    Raises:
        ConfigError: If there is no run, or an argument is wrong.
    """
    asked, ranges = set(ranges or ()), {**(spare_ranges or {}), **(ranges or {})}
    _check(metric, threshold, ranges, reps, seed)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the folder {out}: {error.strerror or error}") from error
    studies = []
    envs: set[str] = set()
    given = [Path(folder) for folder in folders]
    for folder, paths in find_studies(given).items():
        runs = [read_run(path, metric, os.path.relpath(path, folder)) for path in paths]
        envs |= {run.env for run in runs if run.env is not None}
        studies.append((folder, runs))
    unknown = sorted(asked - envs)
    if unknown:
        raise ConfigError(
            f"no run is on {', '.join(unknown)}; the environments are {', '.join(sorted(envs)) or 'none'}"
        )
    result = Report(metric, threshold, reps, seed, [])
    for number, (folder, runs) in enumerate(studies, 1):
        study = _report_study(folder, runs, metric, threshold, ranges, unfinished, reps, seed)
        drawn = study.drawn_envs
        if curves and drawn:
            name = "curves.png" if out is None or len(studies) == 1 else f"curves-{number}.png"
            where = out or (given[0] if len(given) == len(runs) == 1 else folder)
            if out is None and not any(where.resolve().is_relative_to(one.resolve()) for one in given):
                study.notes.append("no curves were drawn beside single runs; --out names a folder for them")
            else:
                title, notes = folder.absolute().name, study.notes
                study.curves = _draw(study.groups, drawn, metric, title, where / name, seed, notes)
        result.studies.append(study)
    return result


def _draw(
    groups: Sequence[Group], envs: Sequence[str], metric: str, title: str, path: Path, seed: int, notes: list[str]
) -> str | None:
    try:
        draw(groups, envs, metric, title, path, seed)
    except OSError as error:  # the tables do not need them
        notes.append(f"the curves could not be written to {path}: {error.strerror or error}")
        return None
    return str(path)


def _check(metric: str, threshold: float | None, ranges: Ranges, reps: int, seed: int) -> None:
    if metric not in METRICS:
        raise ConfigError(f"metric={metric} must be one of {', '.join(METRICS)}")
    if threshold is not None and not math.isfinite(threshold):
        raise ConfigError(f"threshold={threshold} must be a finite number")
    if reps < 1:
        raise ConfigError(f"reps={reps} must be at least 1")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed} must be in [0, 2^32)")
    check_ranges(ranges)


def _report_study(
    folder: Path,
    runs: Sequence[RunResult],
    metric: str,
    threshold: float | None,
    ranges: Ranges,
    unfinished: bool,
    reps: int,
    seed: int,
) -> Study:
    groups, varied = group_runs(runs, unfinished)
    envs = sorted({run.env for run in runs if run.env is not None})
    together = len(envs) > 1 and all(env in ranges for env in envs)
    if together:
        keep_common(groups, envs)
    counted = {run.name for group in groups for by_seed in group.counted.values() for run in by_seed.values()}
    left_out = {
        name: reason for group in groups for by_run in group.left_out.values() for name, reason in by_run.items()
    }
    labels = {name: group.label for group in groups for by_run in group.left_out.values() for name in by_run}
    labels |= {r.name: group.label for group in groups for by_seed in group.counted.values() for r in by_seed.values()}
    versions, notes = _what_ran(runs)
    commands = {run.command for run in runs}
    return Study(
        folder=str(folder),
        envs=envs,
        varied=varied,
        versions=versions,
        command=commands.pop() if len(commands) == 1 else None,
        notes=notes,
        tables=[
            compare(groups, some, {env: ranges[env] for env in some if env in ranges}, metric, threshold, reps, seed)
            for some in ([envs] if together else [[env] for env in envs])
        ],
        runs=[
            RunRow(
                run=run.name,
                group=labels.get(run.name),
                env=run.env,
                seed=run.seed,
                status=run.status,
                counted=run.name in counted,
                steps=run.steps,
                budget=run.budget,
                seconds=run.seconds,
                speed=run.speed,
                score=run.score,
                verified=run.verified,
                notes=run.notes + [why for why in (left_out.get(run.name),) if why is not None and why != run.status],
            )
            for run in runs
        ],
        presets=_presets(runs, labels),
        results=list(runs),
        groups=groups,
    )


def _presets(runs: Sequence[RunResult], labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Whose values each group took; nothing of groups that do not say."""
    told: dict[str, list[str]] = {}
    for run in runs:
        if run.preset is not None and run.name in labels:
            names = told.setdefault(labels[run.name], [])
            names += [run.preset] if run.preset not in names else []
    return told


def _what_ran(runs: Sequence[RunResult]) -> tuple[dict[str, list[str]], list[str]]:
    """Versions by name, and notes on what the runs did not have in common."""
    telling = [run for run in runs if run.versions]
    names = list(dict.fromkeys(name for run in telling for name in run.versions))
    versions = _distinct_values(names, [run.versions for run in telling])
    machines = _distinct_values(("device", "threads"), [run.config for run in runs if run.config])
    notes = [
        f"the runs had different {name}: {', '.join(values)}"
        for name, values in {**versions, **machines}.items()
        if len(values) > 1
    ]
    if len(telling) < len(runs):
        notes.append(f"{len(runs) - len(telling)} of {len(runs)} runs do not say what they ran with")
    return versions, notes


def _distinct_values(names: Iterable[str], rows: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    return {name: list(dict.fromkeys(row.get(name, "unknown") for row in rows)) for name in names}


def main() -> None:
    """Parse the command line, read, print and write.

    Raises:
        ConfigError: If there is no run, or an argument is wrong; runs that cannot be read are listed in the report.
        ResourceError: If the report cannot be written.
    """
    parser = Parser(prog="hsw-report", description="Compare runs, from their folders alone.")
    add = parser.add_argument
    add("folders", type=Path, nargs="+", help="run folders, or folders that hold some at any depth")
    add("--format", choices=tuple(FORMS), help="what to print, or as html to write (text on a terminal, md elsewhere)")
    add("--metric", choices=tuple(METRICS), default="return", help="of the last evaluation (return)")
    add("--threshold", type=float, help="say when runs reached it, and measure the optimality gap")
    add("--normalize", action="append", default=[], metavar="ENV=LOW:HIGH", help="score 0 and 1 of a task")
    add("--ranges", type=Path, metavar="FILE", help='the same as JSON, {"ENV": [low, high]}')
    add("--unfinished", action="store_true", help="also count runs that did not end")
    add("--keys", action="store_true", help="list every key that differs between the groups")
    add("--out", type=Path, help="folder for the learning curves (the study's) and the report, or the report's file")
    watching = "look for news of the runs so often (10), and write the page again, until Ctrl-C"
    add("--watch", type=float, nargs="?", const=10.0, metavar="SECONDS", help=watching)
    add("--no-curves", dest="curves", action="store_false", help="draw no picture of the curves")
    add("--reps", type=int, default=2000, help="resamples of the bootstrap (2000)")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    options = vars(parser.parse_args())
    folders, every, keys, out = (options.pop(name) for name in ("folders", "watch", "keys", "out"))
    to = target(options.pop("format"), out, folders, sys.stdout.isatty())
    page = to.written == "html"
    if every is not None and not (page and 0.1 <= every <= 86_400):
        raise ConfigError(f"--watch={every:g} must be 0.1 to 86400 seconds, and goes with --format html")
    file, ranges, pictures = options.pop("ranges"), read_ranges(options.pop("normalize")), options.pop("curves")
    spare = read_ranges_file(file) if file else None
    options["unfinished"] |= every is not None  # what is watched has not ended

    def make(again: float | None) -> None:
        beside = to.file.parent if to.file is not None and not page else None
        result = report(folders, ranges=ranges, spare_ranges=spare, out=beside, curves=pictures and not page, **options)
        result.command, result.keys = shlex.join(["python", "-m", "hsw.report", *sys.argv[1:]]), keys
        if page and to.file is not None:
            print(write_page(result, to.file, again, pictures), flush=True)
            return
        print(text_of(result, to.printed))
        if to.file is not None:
            write(to.file, text_of(seen_from(to.file.parent, result), to.written))

    if every is None:
        make(None)
    else:
        watch(folders, every, make)


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
