"""How speed and memory grow: `python -m benchmarks.scaling [ppo_cartpole ...]`, or `make scaling`.

PPO against environments, on native CartPole and on Pong where EnvPool is installed; IMPALA on CartPole against actors,
and environments of each; hindsight's sampling against what is stored. Each measurement is a process of its own with one
torch thread; memory is the largest proportional set size of it and its children. Results are kept in scaling.json, as
tables in scaling.md and as pictures in curves/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import load
from hsw.run.provenance import machine

HERE = Path(__file__).resolve().parent
_POLL = 0.2  # seconds between looks at the memory


@dataclass(frozen=True)
class Point:
    """One measurement: where it stands on the axis, on which line, and what is run."""

    x: int
    line: str
    script: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """What is measured against what; what it needs, and in a sentence what one sees."""

    axis: str
    unit: str
    points: tuple[Point, ...]
    needs: str = "hsw"
    note: str = field(default="", compare=False)


def _ppo(task: str, num_envs: Sequence[int], total: int) -> tuple[Point, ...]:
    """Minibatches have 256 rows and rollouts 8192 at most, so that a row's update costs the same everywhere."""
    points = []
    for n in num_envs:
        num_steps = max(16, min(128, 8192 // n))
        sizes = ("--num-envs", n, "--num-steps", num_steps, "--num-mini-batch", max(1, n * num_steps // 256))
        cycles = ("--cycles", max(2, total // (n * num_steps)))
        backend = ("--backend", "native") if task == "cartpole" else ()
        points.append(Point(n, "PPO", "hsw_ppo", tuple(map(str, ("--task", task, *backend, *sizes, *cycles)))))
    return tuple(points)


def _impala(seconds: int) -> tuple[Point, ...]:
    return tuple(
        Point(
            n,
            f"{actors} actor{'s' * (actors > 1)}",
            "hsw_impala",
            ("--backend", "native", "--num-actors", str(actors), "--num-envs", str(n), "--cycles", str(seconds)),
        )
        for actors in (1, 2, 4)
        for n in (1, 4, 16, 64)
    )


def _her() -> tuple[Point, ...]:
    return tuple(
        Point(
            stored,
            f"batches of {size}",
            "hsw_her",
            ("sample", "--batch-size", str(size), "--stored", str(stored), "--num-envs", str(stored // 5000)),
        )
        for size in (256, 2048)
        for stored in (10_000, 100_000, 1_000_000, 10_000_000)
    )


CURVES = {
    "ppo_cartpole": Curve(
        "environments", "steps/s", _ppo("cartpole", [2**k for k in range(11)], 60_000),
        note="Acting in NumPy ends at 32 environments; with more, torch acts, and arithmetic counts.",
    ),
    "ppo_pong": Curve("environments", "steps/s", _ppo("pong", [1, 4, 16, 64], 2_000), "envpool"),
    "impala_cartpole": Curve("environments of each actor", "steps/s", _impala(10)),
    "her_sampling": Curve("stored transitions", "transitions/s", _her(), note="What is drawn lies anywhere in memory."),
}  # fmt: skip


def measure(point: Point) -> dict[str, float]:
    """Run one point. Returns value, memory in MiB, and the cores that others used."""
    command = [sys.executable, str(HERE / "sides" / f"{point.script}.py"), *point.args]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    most = 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors, load.Besides() as besides:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=errors, start_new_session=True)
        try:
            while process.poll() is None:
                most = max(most, memory(process.pid))
                time.sleep(_POLL)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{errors.read()[-3000:]}")
        told = json.loads(out.read().strip().splitlines()[-1])
    return {"value": float(told["value"]), "memory": most, "load": besides.load}


def memory(session: int) -> float:
    """MiB of a session's processes together, shared pages in parts."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                lines = (place / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):  # it has ended
            continue
    return total / 1024


def table(results: dict[str, Any]) -> str:
    """The curves as Markdown."""
    where = results["machine"]
    lines = ["# How speed and memory grow", "", f"{where['cpu']}, {where['cores']} cores, one torch thread. Medians;"]
    lines += ["load is how many cores others used. Made by `make scaling`."]
    for name, found in results["curves"].items():
        lines += ["", f"## {name}", "", f'<img src="curves/scaling_{name}.png" width="640" alt="{name}">', ""]
        lines += [
            f"| {found['axis']} | line | {found['unit']} | memory, MiB | runs | load |",
            "|---|---|---|---|---|---|",
        ]
        for row in found["rows"]:
            value, used, others = (
                statistics.median(run[key] for run in row["runs"]) for key in ("value", "memory", "load")
            )
            lines.append(
                f"| {row['x']:,} | {row['line']} | {value:,.0f} | {used:,.0f} | {len(row['runs'])} | {others:.1f} |"
            )
        lines += ["", *falls(found)]
        if CURVES[name].note:
            lines += ["", CURVES[name].note]
    return "\n".join(lines) + "\n"


def falls(found: dict[str, Any]) -> list[str]:
    """Where a line lies lower than before, in words."""
    told = []
    for line in dict.fromkeys(row["line"] for row in found["rows"]):
        points = [
            (row["x"], statistics.median(run["value"] for run in row["runs"]))
            for row in found["rows"]
            if row["line"] == line
        ]
        best = max(points, key=lambda point: point[1])
        last = points[-1]
        where = f"is highest at {best[0]:,} ({best[1]:,.0f})"
        told.append(
            f"* {line} {where}" + (f" and {1 - last[1] / best[1]:.0%} lower at {last[0]:,}." if last != best else ".")
        )
    return told


def plot(name: str, found: dict[str, Any], path: Path) -> None:
    """Speed above, memory below, over the axis, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(2, 1, figsize=(6, 6), sharex=True, layout="constrained")
    for axes, key, unit in zip(both, ("value", "memory"), (found["unit"], "MiB"), strict=True):
        for line in dict.fromkeys(row["line"] for row in found["rows"]):
            rows = [row for row in found["rows"] if row["line"] == line]
            heights = [statistics.median(run[key] for run in row["runs"]) for row in rows]
            axes.plot([row["x"] for row in rows], heights, marker="o", label=line)
        axes.set(xscale="log", yscale="log", ylabel=unit)
        axes.grid(alpha=0.3)
    both[0].set_title(name)
    both[0].legend()
    both[1].set_xlabel(found["axis"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CURVES)}; all if none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most", type=int, help="leave out points beyond this on the axis")
    parser.add_argument("--out", type=Path, default=HERE / "scaling.json")
    load.add_option(parser)
    args = parser.parse_args()
    if unknown := set(args.names) - set(CURVES):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of measure's end
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {"curves": {}}
    results["machine"] = {**machine(), "date": datetime.date.today().isoformat()}
    refused = []
    for name in args.names or CURVES:
        curve = CURVES[name]
        if importlib.util.find_spec(curve.needs) is None:
            print(f"{name} is left out: {curve.needs} is not installed", file=sys.stderr)
            continue
        rows = [
            {
                "x": point.x,
                "line": point.line,
                "args": point.args,
                "runs": [measure(point) for _ in range(args.repeats)],
            }
            for point in curve.points
            if args.most is None or point.x <= args.most
        ]
        if not load.publishable(name, [run["load"] for row in rows for run in row["runs"]], args.loaded):
            refused.append(name)
            continue
        results["curves"][name] = {"axis": curve.axis, "unit": curve.unit, "rows": rows}
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table(results))
        plot(name, results["curves"][name], args.out.parent / "curves" / f"scaling_{name}.png")
    if refused:
        raise SystemExit(f"not published: {', '.join(refused)}")


if __name__ == "__main__":
    main()
