"""Plan a study: python -m hsw.plan <folders> --difference 50|10% [--power .8] [--jobs 4] [--format md|json].

How many seeds a comparison needs, from a pilot's folders, and what they cost.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from hsw.analysis.groups import group_runs, keep_common
from hsw.analysis.plan_tables import FORMATS
from hsw.analysis.plans import Asked, Plan, StudyPlan, plan_table
from hsw.analysis.results import METRICS, find_studies, read_run
from hsw.analysis.score_ranges import Ranges, check_ranges, read_ranges, read_ranges_file
from hsw.cli.main import Parser, run_main
from hsw.errors import ConfigError
from hsw.secrets import redact

_MOST = 1000  # seeds: the time of a simulation grows with their square
_LARGEST = 10_000_000  # seeds times studies: what is held in memory


def plan(
    folders: Iterable[Path | str],
    difference: str,
    power: float = 0.8,
    alpha: float = 0.05,
    most: int = 50,
    jobs: int = 1,
    metric: str = "return",
    ranges: Ranges | None = None,
    spare_ranges: Ranges | None = None,
    reps: int = 2000,
    seed: int = 0,
) -> Plan:
    """Read a pilot and plan the comparisons that its report has.

    Args:
        folders: Run folders, or folders that hold some at any depth.
        difference: Between means: a number in the scores' unit, or a share of the lower mean as "10%".
        power: Share of studies that are to show it, in (0, 1).
        alpha: One minus the level of the report's intervals, in (0, 1).
        most: Seeds of a group to think of.
        jobs: Runs at a time.
        metric: "return" or "success", of the last evaluation.
        ranges: Scores that become 0 and 1, by environment. A study whose environments all have one is planned over
            them, as tasks; otherwise each environment is.
        spare_ranges: The same, also for environments that were perhaps not run; `ranges` win.
        reps, seed: Simulated studies, and the seed of their draws.

    Returns:
        The studies, each with its comparisons.

    Raises:
        ConfigError: If there is no run, a pilot does not show how seeds scatter, or an argument is wrong.
    """
    asked = Asked(metric, *_difference(difference), power, alpha, most, jobs, reps, seed)
    _check(asked)
    given, ranges = set(ranges or ()), {**(spare_ranges or {}), **(ranges or {})}
    check_ranges(ranges)
    studies, known = [], set()
    for folder, paths in find_studies(Path(one) for one in folders).items():
        runs = [read_run(path, metric, os.path.relpath(path, folder)) for path in paths]
        envs = sorted({run.env for run in runs if run.env is not None})
        known.update(envs)
        studies.append((folder, runs, envs))
    unknown = sorted(given - known)
    if unknown:
        raise ConfigError(
            f"no run is on {', '.join(unknown)}; the environments are {', '.join(sorted(known)) or 'none'}"
        )
    plans = []
    for folder, runs, envs in studies:
        groups, _ = group_runs(runs)
        if not groups:
            raise ConfigError(f"no run in {folder} can be read; python -m hsw.report says why")
        together = len(envs) > 1 and all(env in ranges for env in envs)
        if together:
            keep_common(groups, envs)
        tables = [
            plan_table(groups, some, {env: ranges[env] for env in some if env in ranges}, asked)
            for some in ([envs] if together else [[env] for env in envs])
        ]
        plans.append(StudyPlan(str(folder), tables))
    return Plan(asked, plans)


def _difference(text: str) -> tuple[float, bool]:
    """The number, and whether it is a share."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 < value < 1e100:
        raise ConfigError(f"--difference={text} must be a number above 0, as 50, or with a % of the lower mean, as 10%")
    return (value / 100, True) if text.endswith("%") else (value, False)


def _check(asked: Asked) -> None:
    if asked.metric not in METRICS:
        raise ConfigError(f"metric={asked.metric} must be one of {', '.join(METRICS)}")
    for name in ("power", "alpha"):
        if not 0 < getattr(asked, name) < 1:
            raise ConfigError(f"--{name}={getattr(asked, name)} must be between 0 and 1")
    if not 2 <= asked.most <= _MOST:
        raise ConfigError(f"--most={asked.most} must be from 2 to {_MOST:,} seeds")
    if not 1 <= asked.jobs <= _MOST**2:
        raise ConfigError(f"--jobs={asked.jobs} must be at least 1")
    if not 1 <= asked.reps <= _LARGEST // asked.most:
        raise ConfigError(
            f"--reps={asked.reps} must be from 1 to {_LARGEST // asked.most:,} studies of {asked.most} seeds"
        )
    if not 0 <= asked.seed < 2**32:
        raise ConfigError(f"--seed={asked.seed} must be in [0, 2^32)")


def main() -> None:
    """Parse the command line, plan, print.

    Raises:
        ConfigError: If there is no run, a pilot does not show how seeds scatter, or an argument is wrong.
    """
    parser = Parser(
        prog="hsw-plan",
        description="How many seeds a comparison needs, from a pilot's run folders, and what they cost.",
    )
    parser.add_argument("folders", type=Path, nargs="+", help="run folders, or folders that hold some at any depth")
    parser.add_argument(
        "--difference", required=True, metavar="D", help="of the means: 50 in the scores' unit, 10%% of the lower mean"
    )
    parser.add_argument("--power", type=float, default=0.8, help="share of studies that are to show it (0.8)")
    parser.add_argument("--alpha", type=float, default=0.05, help="one minus the level of the intervals (0.05)")
    parser.add_argument("--most", type=int, default=50, metavar="SEEDS", help="of a group, to think of (50)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    parser.add_argument("--metric", choices=tuple(METRICS), default="return", help="of the last evaluation (return)")
    parser.add_argument(
        "--normalize", action="append", default=[], metavar="ENV=LOW:HIGH", help="score 0 and 1 of a task"
    )
    parser.add_argument("--ranges", type=Path, metavar="FILE", help='the same as JSON, {"ENV": [low, high]}')
    parser.add_argument("--format", choices=tuple(FORMATS), default="md", help="what to print (md)")
    parser.add_argument("--reps", type=int, default=2000, help="simulated studies (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    options = vars(parser.parse_args())
    kind = options.pop("format")
    file, ranges = options.pop("ranges"), read_ranges(options.pop("normalize"))
    spare = read_ranges_file(file) if file else None
    result = plan(options.pop("folders"), ranges=ranges, spare_ranges=spare, **options)
    result.command = shlex.join(["python", "-m", "hsw.plan", *sys.argv[1:]])
    print(redact(FORMATS[kind](result)).encode("utf-8", "backslashreplace").decode())


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
