"""How IMPALA scales: measured costs, a model, runs that check it, and tables for machines that are not here.

    python -m benchmarks.scale --measure    # costs of this machine, into scale.json
    python -m benchmarks.scale --validate   # short runs with 1, 2 and 4 actors beside what the model says of them
    python -m benchmarks.scale --simulate   # 8, 64 and 1,000 actors
    python -m benchmarks.scale --write      # the tables of docs/scale.md, from scale.json

Costs are CPU seconds, so that a machine that others use too slows nothing but the measuring; how much others wanted of
it while a run went on stands beside that run, and the forecast knows it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.cuda import train
from benchmarks.scale_costs import measure
from benchmarks.scale_model import Costs, Line, Setup, limits
from benchmarks.scale_simulation import Simulation
from benchmarks.scale_tables import written
from hsw.run.provenance import machine

HERE = Path(__file__).resolve().parent
# Arguments of hsw.train; what the tables call it; whether it is checked by runs.
WORKLOADS: dict[str, tuple[tuple[str, ...], bool]] = {
    "catch": (("agent=impala", "env=catch"), True),
    "cartpole": (("agent=impala", "env=cartpole"), False),
    "catch, 1024-1024": (("agent=impala", "env=catch", "network.hidden_sizes=[1024,1024]"), True),
}


# -- real runs --------------------------------------------------------------------------------------------------------


def grouped() -> bool:
    """Whether the system shares its cores among sessions."""
    path = Path("/proc/sys/kernel/sched_autogroup_enabled")
    return path.exists() and path.read_text().strip() == "1"


@contextlib.contextmanager
def competitors() -> Iterator[list[float]]:
    """How many others want a core: tasks, or sessions where grouped; sampled until the context ends."""
    found: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            running = _running()
            found.append(len(set(running)) if grouped() else len(running))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _running() -> list[int]:
    """The session of each task that wants a core and is neither this process's nor one that it started."""
    parents, running = {}, []
    for path in Path("/proc").glob("[0-9]*/task/*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            pid = int(path.parts[2])
            parents[pid] = int(parent)
            if state == "R":
                running.append((pid, int(session)))
    own = [os.getpid()]
    for pid in own:  # grows meanwhile
        own += [child for child, parent in parents.items() if parent == pid]
    return [session for pid, session in running if pid not in own]


def setup_of(arguments: tuple[str, ...], actors: int, cores: float) -> Setup:
    """The settings of a run on this machine."""
    import hsw

    config = hsw.compose([*arguments, f"agent.num_actors={actors}"])
    storage = config.storage
    return Setup(actors, config.env.num_envs, storage.num_steps, storage.batch_size, storage.num_storages, cores)


def validate(costs: dict[str, Costs], seconds: float, repeats: int) -> Iterator[dict[str, Any]]:
    """Runs with 1, 2 and 4 actors, and what formulas and simulation say of them under the load that there was."""
    cores = len(os.sched_getaffinity(0))
    for name, (arguments, checked) in WORKLOADS.items():
        for actors in (1, 2, 4) if checked else ():
            for _ in range(repeats):
                setup = setup_of(arguments, actors, cores)
                with tempfile.TemporaryDirectory(prefix="hsw-scale-") as folder, competitors() as others:
                    more = (f"agent.num_actors={actors}", "agent.log_interval=2000", "threads=1")
                    run = train((*arguments, *more), "cpu", seconds, Path(folder) / "run")
                if "value" not in run:
                    raise RuntimeError(f"{name} with {actors} actors did not run:\n{run['error']}")
                setup = replace(setup, background=statistics.mean(others), grouped=grouped())
                forecast = limits(costs[name], setup)
                row = {
                    "workload": name,
                    "actors": actors,
                    "others": setup.background,
                    "measured": run["value"],
                    "measured_idle": [run.get("speed/learner_idle"), run.get("speed/actors_idle")],
                    "formula": min(forecast.values()),
                    "first": min(forecast, key=lambda key: forecast[key]),
                    "simulated": Simulation(costs[name], setup).run(20.0, 2.0),
                }
                told = f"{row['measured']:,.0f} measured, {row['simulated']['steps_per_second']:,.0f} simulated"
                print(f"{name}, {actors} actors, {setup.background:.1f} others: {told}", file=sys.stderr)
                yield row


# -- machines that are not here ---------------------------------------------------------------------------------------


ETHERNET = {"cores": 16, "actors_a_machine": 15, "bandwidth": 1.25e9, "latency": 2e-3}
FAST = 20  # an assumption, not a measurement
# What the tables ask for: machines, how much faster than one core of this machine the learner is, and B.
CLUSTERS: dict[str, tuple[dict[str, Any], int, int]] = {
    "one machine, 96 cores": ({"cores": 96}, 1, 16),
    "machines of 16 cores, 10 Gbit/s": (ETHERNET, 1, 16),
    f"machines of 16 cores, 10 Gbit/s, learner {FAST} x": (ETHERNET, FAST, 64),
    f"machines of 16 cores, 1 Gbit/s, learner {FAST} x": ({**ETHERNET, "bandwidth": 1.25e8}, FAST, 64),
}


def simulate(costs: dict[str, Costs]) -> list[dict[str, Any]]:
    """Forecasts for 8, 64 and 1,000 actors."""
    rows = []
    for name, (arguments, checked) in WORKLOADS.items():
        for where, (given, faster, batch) in CLUSTERS.items() if checked else ():
            update = costs[name].update
            cost = replace(costs[name], update=Line(update.fixed / faster, update.each / faster))
            for actors in (8, 64, 1000):
                own = setup_of(arguments, actors, given["cores"])
                slots = max(own.slots, 2 * actors * own.envs + 2 * batch)
                setup = replace(own, slots=slots, batch_size=batch, **given)
                found = limits(cost, setup)
                row = {"workload": name, "where": where, "actors": actors, "formula": min(found.values())}
                seconds = 5.0 if actors < 1000 else 2.0
                rows.append({**row, "limits": found, "simulated": Simulation(cost, setup).run(seconds, 2.0)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="How IMPALA scales.")
    for name in ("measure", "validate", "simulate", "write"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run of --validate")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each kind")
    parser.add_argument("--out", type=Path, default=HERE / "scale.json")
    load.add_option(parser)
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    if args.measure:
        costs_now = {}
        with load.Besides() as besides:
            for name, (arguments, _) in WORKLOADS.items():
                costs_now[name] = asdict(measure(arguments))
                print(f"{name}: {costs_now[name]}", file=sys.stderr)
        if not load.publishable("scale --measure", [besides.load], args.loaded):
            raise SystemExit(1)
        results["machine"] = {**machine(), "date": datetime.date.today().isoformat(), "load": besides.load}
        results["costs"] = costs_now
    if "costs" not in results:
        parser.error(f"there is no {args.out} with costs; --measure first")
    costs = {name: Costs.of(plain) for name, plain in results["costs"].items()}
    if args.validate:
        rows = list(validate(costs, args.seconds, args.repeats))
        others = [row["others"] for row in rows]  # by what wants a core: a killed actor's time is counted to nobody
        if not load.publishable("scale --validate", others, args.loaded):
            raise SystemExit(1)
        about = {"load": max(others), "seconds": args.seconds, "date": datetime.date.today().isoformat()}
        results["validation"] = {**about, "rows": rows}
    if args.simulate:
        results["forecast"] = simulate(costs)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.write:
        written(HERE.parent / "docs" / "scale.md", results)


if __name__ == "__main__":
    main()
