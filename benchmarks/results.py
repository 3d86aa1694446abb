"""Train the table of results again: `python -m benchmarks.results [jobs]`.

Each job is a command and its seeds. The runs' own last evaluations, in their metrics.jsonl, are the figures; their
training returns are the curves. Results are kept in learning.json, where a job that is trained again replaces its last
figures, as a table in learning.md, and as curves/<job>.png.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Job:
    """Arguments of hsw.train, how many seeds (1, 2, ...) to train, and the figure of their evaluations."""

    overrides: tuple[str, ...]
    num_seeds: int
    figure: str = "return"

    @property
    def command(self) -> str:
        return " ".join(["python -m hsw.train", *self.overrides])


# A figure in the metrics of an evaluation and of training.
KEYS = {"return": ("eval/return_mean", "train/episode_return"), "success": ("eval/success", "train/success")}


def _bit_flipping(strategy: str) -> Job:
    return Job(("env=bit_flipping", "agent=her_sac", strategy, "eval_episodes=100"), 5, "success")


JOBS = {
    "ppo_cartpole": Job(("agent=ppo",), 5),
    "daac_cartpole": Job(("storage=decoupled", "agent=daac"), 5),
    "ppo_minatar_breakout": Job(("env=minatar_breakout", "agent=ppo"), 3),
    "ppo_lunar_lander": Job(("env=lunar_lander", "agent=ppo"), 3),
    "her_future_bit_flipping": _bit_flipping("storage.goal_selection_strategy=future"),
    "her_final_bit_flipping": _bit_flipping("storage.goal_selection_strategy=final"),
    "her_episode_bit_flipping": _bit_flipping("storage.goal_selection_strategy=episode"),
    "her_none_bit_flipping": _bit_flipping("storage.num_goals=0"),
    "her_sac_fetch_reach": Job(("env=fetch_reach", "agent=her_sac", "eval_episodes=100"), 3, "success"),
    "sac_pendulum": Job(("env=pendulum", "agent=sac"), 3),
    "sac_halfcheetah": Job(
        ("env=halfcheetah", "agent=sac", "num_train_steps=200000", "eval_interval=10000", "eval_episodes=5"), 1
    ),
    "impala_catch": Job(("env=catch", "agent=impala"), 5),
    "impala_cartpole": Job(("env=cartpole", "agent=impala"), 5),
    "impala_minatar_breakout": Job(("env=minatar_breakout", "agent=impala"), 1),
}


def train_run(overrides: Sequence[str], seed: int, folder: Path) -> list[dict[str, Any]]:
    """Train one seed. Returns the rows of its metrics."""
    shutil.rmtree(folder, ignore_errors=True)
    arguments = [*overrides, f"seed={seed}", f"hydra.run.dir={folder}", "quiet=true"]
    result = subprocess.run(
        [sys.executable, "-m", "hsw.train", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with code {result.returncode}:\n{result.stderr[-3000:]}")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def score_of(figure: str, rows: list[dict[str, Any]]) -> float:
    """A run's last evaluation."""
    key, _ = KEYS[figure]
    return float([row[key] for row in rows if key in row][-1])


def train(name: str, seed: int, folder: Path, extra: list[str]) -> list[dict[str, Any]]:
    """Train one seed of a job. Returns the rows of its metrics."""
    rows = train_run([*JOBS[name].overrides, *extra], seed, folder)
    print(f"{name} seed {seed}: {score_of(JOBS[name].figure, rows):.2f}", file=sys.stderr)
    return rows


def summary(name: str, runs: list[list[dict[str, Any]]], extra: list[str]) -> dict[str, Any]:
    """One row of learning.json."""
    scores = [score_of(JOBS[name].figure, rows) for rows in runs]
    return {
        "command": " ".join([JOBS[name].command, *extra]),
        "seeds": list(range(1, len(runs) + 1)),
        "steps": max(rows[-1]["step"] for rows in runs),
        "figure": JOBS[name].figure,
        "scores": scores,
        "mean": statistics.mean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "seconds": statistics.mean(rows[-1]["time"] for rows in runs),
        "date": datetime.date.today().isoformat(),
    }


def plot(name: str, runs: list[list[dict[str, Any]]], path: Path) -> None:
    """The training return, or success, over steps: mean and range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves, (_, key) = [], KEYS[JOBS[name].figure]
    for rows in runs:
        points = [(row["step"], row[key]) for row in rows if key in row]
        curves.append(np.array(points, float).T)
    # Reset rows count no steps, so each seed logs at steps of its own: read all at the same ones.
    begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    steps = np.linspace(begin, end, 200)
    returns = np.stack([np.interp(steps, *curve) for curve in curves])
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.fill_between(steps, returns.min(0), returns.max(0), alpha=0.25, linewidth=0)
    axes.plot(steps, returns.mean(0))
    axes.set(
        title=f"{name}, {len(runs)} seed{'s' * (len(runs) > 1)}",
        xlabel="environment steps",
        ylabel=f"{JOBS[name].figure} of the last 100 episodes",
    )
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def table(results: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [
        "# Learning",
        "",
        "Return, or success rate, of each run's last evaluation (20 episodes, or as the command says, in environments",
        "of their own), mean ± standard deviation over seeds. Time is the mean wall time of one seed, while other runs",
        "shared the machine. Made by `python -m benchmarks.results`.",
        "",
        "| job | command | seeds | steps | score | time |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        lines.append(
            f"| [{name}](curves/{name}.png) | `{row['command']}` | {len(row['seeds'])} | {row['steps']:,} | "
            f"{_score(row)} | {row['seconds']:.0f} s |"
        )
    return "\n".join(lines) + "\n"


def _score(row: dict[str, Any]) -> str:
    digits = 2 if row["figure"] == "success" else 1
    spread = f" ± {row['std']:.{digits}f}" if len(row["scores"]) > 1 else ""
    return f"{row['figure']} {row['mean']:.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the table of results again.")
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(JOBS)}; all if none")
    parser.add_argument("--seeds", type=int, help="instead of each job's own number")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--extra", nargs="*", default=[], help="further overrides, such as num_train_steps=5000")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "learning", help="where the runs go")
    parser.add_argument("--out", type=Path, default=HERE / "learning.json")
    args = parser.parse_args()
    unknown = set(args.jobs) - set(JOBS)
    if unknown:
        parser.error(f"there is no job {', '.join(sorted(unknown))}")
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.parallel) as pool:
        pending = {
            name: [
                pool.submit(train, name, seed, args.runs.resolve() / name / f"seed-{seed}", args.extra)
                for seed in range(1, (args.seeds or JOBS[name].num_seeds) + 1)
            ]
            for name in args.jobs or JOBS
        }
        for name, futures in pending.items():
            runs = [future.result() for future in futures]
            results[name] = summary(name, runs, args.extra)
            results = {job: results[job] for job in JOBS if job in results}
            args.out.write_text(json.dumps(results, indent=1) + "\n")
            args.out.with_suffix(".md").write_text(table(results))
            plot(name, runs, args.out.parent / "curves" / f"{name}.png")
    print(table(results))


if __name__ == "__main__":
    main()
