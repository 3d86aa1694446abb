"""Measure hsw beside its peers: `python -m benchmarks.run [names] [--repeats 5]`.

Every measurement is a process of its own with one torch thread. The sides of a comparison take turns, A B A B, so that
what else the machine does falls on both. A figure measured while others used more than half a core is not published,
unless --loaded asks for it; the load stands beside each. Results are kept in results.json, where a comparison that is
measured again replaces its last figures, and as a table in results.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.comparisons import COMPARISONS, Comparison, Side
from hsw.run.provenance import machine

HERE = Path(__file__).resolve().parent


def measure(side: Side, quick: bool) -> dict[str, Any]:
    """Run one side once. Returns its JSON line, with the cores that others used meanwhile."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if side.project == "hsw":
        env["PYTHONPATH"] = str(HERE.parent)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors, load.Besides() as besides:
        process = subprocess.Popen(side.command(quick), env=env, stdout=out, stderr=errors, start_new_session=True)
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:  # it leaves no process of its own, however it or this one ends
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(side.command(quick))} failed:\n{errors.read()[-3000:]}")
        told = json.loads(out.read().strip().splitlines()[-1])
    return {**told, "load": besides.load}


def compare(comparison: Comparison, repeats: int, quick: bool) -> dict[str, Any]:
    """Measure the sides in turn. Returns the row for results.json."""
    row: dict[str, Any] = {
        "unit": comparison.unit,
        "target": comparison.target,
        "date": datetime.date.today().isoformat(),
        "hsw": {"script": comparison.hsw.script, "args": comparison.hsw.args, "runs": []},
    }
    sides = [("hsw", comparison.hsw)]
    if comparison.peer:
        row["peer"] = {"script": comparison.peer.script, "args": comparison.peer.args, "runs": []}
        sides.append(("peer", comparison.peer))
    for repeat in range(repeats):
        for key, side in sides:
            run = measure(side, quick)
            row[key]["runs"].append(run)
            print(f"{comparison.name} {repeat + 1}/{repeats} {side.script}: {run['value']:.4g}", file=sys.stderr)
    values = {key: [run["value"] for run in row[key]["runs"]] for key, _ in sides}
    for key, _ in sides:
        row[key].update(spread(values[key]))
    if comparison.peer:
        row["ratio"] = spread([comparison.ratio(*pair) for pair in zip(values["hsw"], values["peer"], strict=True)])
        pairs = zip(row["hsw"]["runs"], row["peer"]["runs"], strict=True)
        if "per_cpu_second" in row["hsw"]["runs"][0]:
            row["cpu_ratio"] = spread([hsw["per_cpu_second"] / peer["per_cpu_second"] for hsw, peer in pairs])
    return row


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(results: dict[str, Any]) -> str:
    """The results as markdown."""
    where = results["machine"]
    lines = [
        "# Speed",
        "",
        f"{where['cpu']}, {where['cores']} cores, Python {where['python']}, one torch thread. Median (min to max); the",
        "ratio is the median over pairs of runs that took turns, and above 1 means that hsw is better; the CPU",
        "ratio is that of steps per second of CPU time. Load is how many cores others used during the runs, median;",
        "before December 2026 it was the load average before them.",
        "Made by `python -m benchmarks.run`.",
        "",
        "| comparison | unit | hsw | peer | ratio | CPU ratio | target | runs | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    versions: dict[str, set[str]] = {}
    for name, row in results["comparisons"].items():
        sides = [row[key] for key in ("hsw", "peer") if key in row]
        loads = "/".join(f"{statistics.median(run['load'] for run in side['runs']):.1f}" for side in sides)
        peer = f"{row['peer']['script'].split('_')[0]} {_shown(row['peer'])}" if "peer" in row else "-"
        ratio = _shown(row["ratio"], "x") if "ratio" in row else "-"
        cpu_ratio = _shown(row["cpu_ratio"], "x") if "cpu_ratio" in row else "-"
        runs = len(row["hsw"]["runs"])
        lines.append(
            f"| {name} | {row['unit']} | {_shown(row['hsw'])} | {peer} | {ratio} | {cpu_ratio} | "
            f"{row['target']} | {runs} | {loads} |"
        )
        for side in sides:
            shown = ", ".join(f"{module} {version}" for module, version in side["runs"][-1]["versions"].items())
            versions.setdefault(side["script"].split("_")[0], set()).add(shown)
    lines += ["", "Versions:", ""]
    lines += [f"* {project}: {max(shown, key=len)}" for project, shown in versions.items()]
    return "\n".join(lines) + "\n"


def _shown(values: dict[str, float], suffix: str = "") -> str:
    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    return f"{number(values['median'])}{suffix} ({number(values['min'])} to {number(values['max'])})"


def main() -> None:
    groups = list(dict.fromkeys(comparison.name.split("/")[0] for comparison in COMPARISONS))
    parser = argparse.ArgumentParser(description="Measure hsw beside its peers.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(groups)}, or one row such as gae/128x8; all if none")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    parser.add_argument("--quick", action="store_true", help="one cycle each: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    load.add_option(parser)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of measure's end
    chosen = [c for c in COMPARISONS if not args.names or {c.name, c.name.split("/")[0]} & set(args.names)]
    unknown = set(args.names) - {c.name for c in COMPARISONS} - set(groups)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    results: dict[str, Any] = {"comparisons": {}}
    if args.out.is_file():
        results = json.loads(args.out.read_text())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results["machine"] = {**machine(), "python": platform.python_version(), "torch_threads": 1}
    failed: list[str] = []
    for comparison in chosen:
        try:
            row = compare(comparison, args.repeats, args.quick)
        except RuntimeError as error:  # the others can be measured all the same
            print(f"{comparison.name}: {error}", file=sys.stderr)
            failed.append(comparison.name)
            continue
        loads = [run["load"] for side in ("hsw", "peer") if side in row for run in row[side]["runs"]]
        if not load.publishable(comparison.name, loads, args.loaded):
            failed.append(comparison.name)
            continue
        results["comparisons"][comparison.name] = row
        order = [c.name for c in COMPARISONS if c.name in results["comparisons"]]
        results["comparisons"] = {name: results["comparisons"][name] for name in order}
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table(results))
    print(table(results))
    if failed:
        raise SystemExit(f"not published: {', '.join(failed)}")


if __name__ == "__main__":
    main()
