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
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.cuda import train
from benchmarks.scale_model import Costs, Line, Setup, Simulation, limits
from benchmarks.scale_tables import written
from hsw.run.provenance import machine

HERE = Path(__file__).resolve().parent
# Arguments of hsw.train; what the tables call it; whether it is checked by runs.
WORKLOADS: dict[str, tuple[tuple[str, ...], bool]] = {
    "catch": (("agent=impala", "env=catch"), True),
    "cartpole": (("agent=impala", "env=cartpole"), False),
    "catch, 1024-1024": (("agent=impala", "env=catch", "network.hidden_sizes=[1024,1024]"), True),
}
SIZES, BATCHES, POOLS = (2, 8, 24), (4, 16), (4, 100)


def cpu_time(function: Callable[[], Any], seconds: float = 0.15) -> float:
    """CPU seconds of a call: the least of several means, because what disturbs a measurement only adds to it."""
    function()
    begin = time.process_time()
    function()
    number = max(1, int(seconds / 5 / max(time.process_time() - begin, 1e-6)))
    means = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(number):
            function()
        means.append((time.process_time() - begin) / number)
    return min(means)


def line(numbers: tuple[int, ...], costs: list[float]) -> Line:
    """The least squares of relative errors."""
    import numpy as np

    rows = np.array([[1.0, n] for n in numbers]) / np.array(costs)[:, None]
    fixed, each = np.linalg.lstsq(rows, np.ones(len(costs)), rcond=None)[0]
    return Line(max(0.0, float(fixed)), max(0.0, float(each)))


def measure(arguments: tuple[str, ...]) -> Costs:
    """The costs of a workload, by its own parts in this process."""
    import torch

    import hsw
    from hsw.agent.actor import Actor, SharedWeights
    from hsw.env import remaker

    torch.set_num_threads(1)
    env_costs, act_costs, store_costs = [], [], []
    for num_envs in SIZES:
        slots = f"storage.num_storages={num_envs + max(BATCHES)}"
        agent: Any = hsw.make(hsw.compose([*arguments, f"env.num_envs={num_envs}", slots, "device=cpu"]))
        make_env = remaker(agent.env, num_envs)
        weights = SharedWeights(agent.policy)
        weights.publish(agent.policy)
        actor = Actor(agent.policy, make_env, agent.storage, weights, 1)
        env, policy, memory = make_env(seed=1), agent.policy, agent.policy.initial_memory(num_envs)
        obs = env.reset()
        actions = _act(policy, obs, memory)[0].numpy()
        env_costs.append(cpu_time(lambda env=env, actions=actions: (env.step(actions), env.pop_episodes())))
        with policy.acting(), torch.no_grad():
            act_costs.append(cpu_time(lambda policy=policy, obs=obs, memory=memory: _act(policy, obs, memory)))
        fetch = cpu_time(lambda weights=weights, policy=policy: weights.fetch(policy))
        fill = lambda actor=actor, env=env, n=num_envs: actor.run(env, 0, _numbers([*range(n), None]), _numbers([]))
        row = (cpu_time(fill, 0.5) - fetch) / agent.storage.num_steps
        store_costs.append(max(0.0, row - env_costs[-1] - act_costs[-1]))
        env.close()
    storage, blocks = agent.storage, agent.storage.storages
    states = storage.init_actor_state_storages
    load = lambda n: storage.sample("cpu", n, _numbers([]), _numbers([*range(n)]), blocks, states)
    batches = {n: load(n) for n in BATCHES}
    take = [cpu_time(lambda n=n: load(n)) for n in BATCHES]
    update = [cpu_time(lambda batch=batches[n]: _learn(agent, batch), 0.5) for n in BATCHES]
    rows = batches[max(BATCHES)]["valid"][:-1]
    from hsw.spaces import leaves

    size = sum(part[0].numel() * part.element_size() for part in leaves(blocks))
    tensors = [*agent.policy.parameters(), *agent.policy.buffers()]
    receive, put, look = pool_costs(agent)
    return Costs(
        env=line(SIZES, env_costs),
        act=line(SIZES, act_costs),
        store=line(SIZES, store_costs),
        fetch=fetch,
        take=line(BATCHES, take),
        update=line(BATCHES, update),
        publish=cpu_time(lambda: weights.publish(agent.policy)),
        receive=receive,
        put=put,
        look=look,
        rollout_bytes=size + sum(part[0].numel() * 4 for part in storage.core),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        valid=float(rows.float().mean()),
    )


def _act(policy: Any, obs: Any, memory: Any) -> Any:
    import torch

    from hsw.spaces import tree_map

    with torch.no_grad():
        return policy.act(tree_map(torch.from_numpy, obs), False, memory)


def _learn(agent: Any, batch: Any) -> None:
    agent.storage.take(batch)
    agent.storage.before_gradients(agent.policy, agent.algorithm)
    info = agent.algorithm.update(agent.storage)
    agent.storage.after_gradients(agent.policy, agent.algorithm, info)


def _numbers(numbers: list[int | None]) -> Any:
    rest = iter(numbers)
    return SimpleNamespace(get=lambda: next(rest), put=lambda number: None)


def pool_costs(agent: Any) -> tuple[Line, Line, Line]:
    """What the pool spends on a full slot, on a free one, and on a look at all its actors, by their number.

    Pipes are real, and nobody sits at their other ends.
    """
    import torch

    from hsw.agent.pool import ActorPool

    received, given, looks = [], [], []
    for actors in POOLS:
        stand_in: Any = SimpleNamespace(stats=torch.zeros(actors, 2, dtype=torch.float64))
        pool: Any = ActorPool(stand_in, 1, actors, 2 * actors, 1, 0, 60.0, 0)
        ends = [Pipe() for _ in range(actors)]
        process: Any = SimpleNamespace(sentinel=0)
        for seat, (here, _) in zip(pool._seats, ends, strict=True):
            seat.begin(process, here)
        pool._feed()
        wanted = [end for pair in ends for end in pair]  # as many as connections and sentinels
        hang = lambda pool=pool: [pool._hangs(seat, 0.0) for seat in pool._seats]
        times = [_round(pool, [there for _, there in ends]) for _ in range(max(5, 200 // actors))]
        looks.append(cpu_time(lambda wanted=wanted: wait(wanted, 0)) + cpu_time(hang))
        received.append(min(one for one, _ in times) / actors)
        given.append(min(other for _, other in times) / actors)
        for pair in ends:
            for end in pair:
                end.close()
    return line(POOLS, received), line(POOLS, given), line(POOLS, looks)


def _round(pool: Any, ends: list[Any]) -> tuple[float, float]:
    """One slot of each seat is full, and comes back free. Returns the CPU seconds of both."""
    for seat, there in zip(pool._seats, ends, strict=True):
        there.send(seat.slots[0])
    begin = time.process_time()
    for seat in pool._seats:
        pool._receive(seat)
    middle = time.process_time()
    for _ in ends:
        pool.put(pool.get())
    end = time.process_time()
    for there in ends:
        while there.poll():
            there.recv()
    return middle - begin, end - middle


# -- real runs --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def competitors() -> Iterator[list[float]]:
    """How many tasks that are not this session's, or its children's, want a core; sampled until the context ends."""
    found: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.2):
            with contextlib.suppress(OSError, ValueError):
                lines = Path("/proc/stat").read_text().splitlines()
                running = next(int(text.split()[1]) for text in lines if text.startswith("procs_running"))
                found.append(max(0.0, running - _own_running()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _own_running() -> int:
    parents, running = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(path.name)
            parents[pid] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    own = [os.getpid()]
    for pid in own:  # grows meanwhile
        own += [child for child, parent in parents.items() if parent == pid]
    for pid in own:
        for task in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                running[task] = task.read_text().rpartition(")")[2].split()[0] == "R"
    return sum(running.values())


def setup_of(arguments: tuple[str, ...], actors: int, cores: float) -> Setup:
    """The settings of a run on this machine."""
    import hsw

    config = hsw.compose([*arguments, f"agent.num_actors={actors}"])
    storage = config.storage
    return Setup(actors, config.env.num_envs, storage.num_steps, storage.batch_size, storage.num_storages, cores)


def validate(costs: dict[str, Costs], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Runs with 1, 2 and 4 actors, and what formulas and simulation say of them under the load that there was."""
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    for name, (arguments, checked) in WORKLOADS.items():
        for actors in (1, 2, 4) if checked else ():
            for _ in range(repeats):
                setup = setup_of(arguments, actors, cores)
                with tempfile.TemporaryDirectory(prefix="hsw-scale-") as folder, competitors() as others:
                    more = (f"agent.num_actors={actors}", "agent.log_interval=2000", "threads=1")
                    run = train((*arguments, *more), "cpu", seconds, Path(folder) / "run")
                if "value" not in run:
                    raise RuntimeError(f"{name} with {actors} actors did not run:\n{run['error']}")
                setup = replace(setup, background=statistics.mean(others))
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
                rows.append(row)
                told = f"{row['measured']:,.0f} measured, {row['simulated']['steps_per_second']:,.0f} simulated"
                print(f"{name}, {actors} actors, {setup.background:.1f} others: {told}", file=sys.stderr)
    return rows


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
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    if args.measure:
        results["machine"] = {**machine(), "date": datetime.date.today().isoformat(), "load": os.getloadavg()[0]}
        results["costs"] = {}
        for name, (arguments, _) in WORKLOADS.items():
            results["costs"][name] = asdict(measure(arguments))
            print(f"{name}: {results['costs'][name]}", file=sys.stderr)
    if "costs" not in results:
        parser.error(f"there is no {args.out} with costs; --measure first")
    costs = {name: Costs.of(plain) for name, plain in results["costs"].items()}
    if args.validate:
        about = {"load": os.getloadavg()[0], "seconds": args.seconds, "date": datetime.date.today().isoformat()}
        results["validation"] = {**about, "rows": validate(costs, args.seconds, args.repeats)}
    if args.simulate:
        results["forecast"] = simulate(costs)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.write:
        written(HERE.parent / "docs" / "scale.md", results)


if __name__ == "__main__":
    main()
