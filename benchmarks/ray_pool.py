"""Hold pool=ray against pool=processes: `python -m benchmarks.ray_pool [--envs catch cartpole] [--seeds 1 2 3]`.

IMPALA with two actors: in processes of this machine, and on a Ray cluster of two nodes with one CPU each beside a head
that has none, which here are raylets of this machine. The two take turns, seed by seed. Scores are the runs' own last
evaluations; speeds are medians of their logged rows but the first, in which actors still start. Results are kept in
ray_pool.json, and as a table in ray_pool.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import load
from hsw.run.provenance import machine

HERE = Path(__file__).resolve().parent
STORE = 200_000_000
FIGURES = {
    "steps/s": "speed/steps_per_second",
    "learner idle": "speed/learner_idle",
    "actors idle": "speed/actors_idle",
    "policy lag": "learn/policy_lag",
    "receiving": "pool/receiving",
    "writing": "pool/writing",
    "publishing": "pool/publishing",
}


def train(folder: Path, *overrides: str) -> dict[str, float]:
    """Train once. Returns the score and medians of the figures that the run logged."""
    command = [sys.executable, "-m", "hsw.train", "agent=impala", "quiet=true", f"hydra.run.dir={folder}", *overrides]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    subprocess.run(command, env=env, check=True, cwd=folder.parent, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "speed/steps_per_second" in row]
    logged = logged[1:] or logged
    found = {"score": next(row["eval/return_mean"] for row in reversed(rows) if "eval/return_mean" in row)}
    for name, key in FIGURES.items():
        values = [row[key] for row in logged if key in row]
        if values:
            found[name] = statistics.median(values)
    return found


def measure(env: str, seeds: list[int], overrides: list[str], address: str) -> dict[str, Any]:
    """Both pools in turn, over seeds."""
    runs: dict[str, list[dict[str, float]]] = {"processes": [], "ray": []}
    for seed in seeds:
        for pool, options in (("processes", []), ("ray", [f"pool.address={address}"])):
            with tempfile.TemporaryDirectory() as folder:
                arguments = (f"env={env}", f"seed={seed}", f"pool={pool}", *options, *overrides)
                with load.Besides() as besides:
                    trained = train(Path(folder, "run"), *arguments)
                runs[pool].append({"seed": seed, "load": besides.load, **trained})
            print(env, pool, json.dumps(runs[pool][-1]), file=sys.stderr)
    pairs = zip(runs["ray"], runs["processes"], strict=True)
    ratio = statistics.median(ray["steps/s"] / other["steps/s"] for ray, other in pairs)
    return {"date": datetime.date.today().isoformat(), **machine(), "overrides": overrides, "ratio": ratio, **runs}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = ["score", *FIGURES]
    lines = [f"| env | pool | seeds | {' | '.join(names)} | load |", f"|---|---|---|{'---|' * len(names)}---|"]
    for env, result in results.items():
        for pool in ("processes", "ray"):
            runs = result[pool]
            figures = [statistics.median(run[name] for run in runs) if name in runs[0] else None for name in names]
            shown = ["-" if value is None else f"{value:.4g}" for value in figures]
            others = statistics.median(run["load"] for run in runs)
            lines.append(f"| {env} | {pool} | {len(runs)} | {' | '.join(shown)} | {others:.1f} |")
        lines.append(f"| {env} | ray : processes | | | {result['ratio']:.2f} |{' |' * (len(names) - 1)}")
    note = "Medians. Idle, receiving, writing and publishing are shares of the time; the last three the pool's."
    return "\n".join((*lines, "", note)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=["catch", "cartpole"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=HERE, help="where ray_pool.json and ray_pool.md go")
    parser.add_argument("overrides", nargs="*", help="of every run, such as num_train_steps=20000")
    load.add_option(parser)
    options = parser.parse_args()
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **node})
    path = options.out / "ray_pool.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **node)
        for env in options.envs:
            measured = measure(env, options.seeds, options.overrides, cluster.address)
            loads = [run["load"] for pool in ("processes", "ray") for run in measured[pool]]
            if load.publishable(env, loads, options.loaded):
                results[env] = measured
    finally:
        cluster.shutdown()
    path.write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "ray_pool.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
