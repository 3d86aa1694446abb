"""What the parts of a workload cost on one core of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import SimpleNamespace
from typing import Any

from benchmarks.scale_model import Costs, Line

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
        fill = lambda times, actor=actor, env=env, n=num_envs: actor.run(
            env, 0, _numbers([*range(n)] * times + [None]), _numbers([])
        )
        # An actor's beginning, a reset and a copy of the policy, comes once in its life.
        rollout = (cpu_time(lambda fill=fill: fill(9), 0.5) - cpu_time(lambda fill=fill: fill(1), 0.5)) / 8
        row = (rollout - fetch) / agent.storage.num_steps
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

    from hsw.agent.pool import ProcessPool
    from hsw.agent.seats import Crew

    received, given, looks = [], [], []
    for actors in POOLS:
        stand_in: Any = SimpleNamespace(stats=torch.zeros(actors, 2, dtype=torch.float64))
        pool: Any = ProcessPool(Crew(stand_in, 1, actors, 2 * actors, seed=1, session=0, timeout=60.0, max_restarts=0))
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
