"""What tests/test_ranks.py has two ranks do, and does alone for comparison.

A function finds by `current` how many ranks there are: one of two learns from its half of the data, one alone from all.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import hsw.algorithm.base
import hsw.algorithm.sac
import hsw.moments
from hsw.algorithm import DAAC, PPO
from hsw.algorithm.intrinsic import CountBonus, Transitions
from hsw.env.normalize import RunningMoments, share
from hsw.errors import HswError, Interrupted
from hsw.network.vector_input import VectorInput
from hsw.ranks import SOLO, current
from hsw.run.callback import Callback
from hsw.seeding import derive_seed, rank_seed
from hsw.spaces import SpaceSpec, tree_map
from tests.agent.helpers import agent, distributed_agent, replay_agent
from tests.algorithm import naive, test_impala, test_sac
from tests.env.helpers import make as make_env


def own(size: int, at: int = 0) -> slice:
    """This rank's part of so many columns; of an odd number the first rank has one less."""
    if current().size == 1:
        return slice(0, size)
    middle = size // 2 + at
    return slice(0, middle) if current().is_first else slice(middle, size)


def numbers(module: Any) -> list[np.ndarray]:
    """Parameters and buffers; torch's tensors would go through file descriptors."""
    return [tensor.detach().numpy().copy() for tensor in module.state_dict().values()]


def alone(*modules: Any) -> Any:
    """A context in which modules know of no other ranks."""
    stack = contextlib.ExitStack()
    for module in modules:
        stack.enter_context(patch.object(module, "current", lambda: SOLO))
    return stack


# -- the ranks themselves -----------------------------------------------------------------------------------------


def reductions() -> dict[str, Any]:
    r = current()
    r.raised = r.rank == 1
    own_rows = torch.arange(3 * (r.rank + 1)).view(-1, 3)
    told = {
        "sum": r.sum_(torch.tensor([1.0, r.rank])).tolist(),
        "mean": r.mean_(torch.tensor([1.0, r.rank])).tolist(),
        "weighted": r.weighted_mean(torch.tensor([[4.0 * r.rank]]), 1 + 2 * r.rank).tolist(),
        "heard": r.heard,
        "broadcast": r.broadcast_(torch.tensor([5 + r.rank])).tolist(),
        "ints": r.total(2**60 + r.rank),
        "floats": r.total(0.25),
        "where": r.where(r.rank == 1),
        "any": r.any(False),
        "parts": [part.tolist() for part in r.parts(own_rows)],
        "exchange": r.exchange({"rank": r.rank, "text": "ä" * r.rank, "nan": math.nan})[-1]["text"],
        "gather": r.gather({"rank": r.rank}),
        "first": r.first(lambda: {"scores": [1.5, r.rank]}),
    }
    r.raised = r.heard = False
    return told


def fails_first() -> None:
    current().first(lambda: (_ for _ in ()).throw(ZeroDivisionError("by nothing")))


def seeds() -> tuple[int, int]:
    return rank_seed(7), derive_seed(rank_seed(7), 0)


# -- updates ------------------------------------------------------------------------------------------------------


def half_rollout(full: Any) -> Any:
    """A storage with this rank's environments of a complete rollout."""
    part = own(full.num_envs)
    storage = type(full)(naive.OBS, naive.ACTION, "cpu", full.num_steps, part.stop - part.start)
    data = full.get_all_buffer_data()
    storage.insert_data_slice({name: tree_map(lambda rows: rows[:, part], field) for name, field in data.items()})
    for name in ("advantages", "returns", "values"):
        getattr(storage, name).copy_(getattr(full, name)[:, part])
    storage.ready = True
    return storage


def rollout_updates(
    name: str, masked: bool, updates: int = 3, own_moments: bool = False, own_rows: bool = False, **options: Any
) -> list[np.ndarray]:
    """The weights after updates from one rollout, in its order of time so that minibatches have the same rows."""
    algorithm, full = naive.collected({"PPO": PPO, "DAAC": DAAC}[name], lr=1e-3, **options)
    if not masked:
        full.valid[:] = True
        full.before_gradients(algorithm.policy, None)
    storage = half_rollout(full)
    shuffled = storage.generate_batches
    storage.generate_batches = lambda *args: shuffled(*args, shuffle=False)
    with alone(*[hsw.moments] * own_moments), contextlib.ExitStack() as stack:
        if own_rows:
            stack.enter_context(patch.object(hsw.algorithm.base, "_num_rows", lambda batch: 1))
        for _ in range(updates):
            info = algorithm.update(storage)
    return [*numbers(algorithm.policy), np.array(info.get("gradient_steps", 0))]


@contextlib.contextmanager
def shared_noise(size: int) -> Iterator[None]:
    """torch.randn_like draws for all ranks' rows, and gives this rank its own."""
    generator = torch.Generator().manual_seed(3)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(size, *like.shape[1:], generator=generator)[own(size)]

    with patch.object(torch, "randn_like", draw):
        yield


def sac_updates(updates: int = 3, own_slope: bool = False) -> list[np.ndarray]:
    algorithm, whole = test_sac.make(lr=1e-3), test_sac.batch_of(8)
    part = {field.name: getattr(whole, field.name)[own(8)] for field in fields(whole)}
    storage = test_sac.Fixed(replace(whole, **part))
    with shared_noise(8), alone(*[hsw.algorithm.sac] * own_slope):
        for _ in range(updates):
            algorithm.update(storage)
    return [*numbers(algorithm.policy), algorithm.log_alpha.detach().numpy().copy()]


def impala_updates(reduction: str, lstm_size: int = 0, updates: int = 3) -> list[np.ndarray]:
    algorithm = test_impala.make(lstm_size=lstm_size, reduction=reduction, lr=1e-3)
    whole = test_impala.batch_of(lstm_size=lstm_size)
    part = own(test_impala.B)
    rows = {name: field[:, part] for name, field in whole.items() if name != "init_actor_states"}
    states = tuple(state[:, part] for state in whole.init_actor_states)
    storage = test_impala.One(type(whole)(rows, init_actor_states=states))
    for _ in range(updates):
        algorithm.update(storage)
    return numbers(algorithm.policy)


def poisoned_update(kind: str) -> dict[str, Any]:
    """An update from a batch that holds a NaN on rank 1: what it raised, and whether the weights are as before."""
    if kind == "SAC":
        algorithm, batch = test_sac.make(), test_sac.batch_of(4)
        storage: Any = test_sac.Fixed(batch)
        target = batch.rewards
    else:
        algorithm, storage = naive.collected(PPO, num_epochs=1, num_mini_batch=2)
        target = storage.returns
    if current().rank == 1:
        target[:] = math.nan
    before = numbers(algorithm.policy)
    try:
        algorithm.update(storage)
    except hsw.algorithm.base.NonFiniteError as error:
        same = all(map(np.array_equal, before, numbers(algorithm.policy)))
        return {"message": str(error), "batch": bool(error.batch), "same": same}
    return {}


# -- moments ------------------------------------------------------------------------------------------------------


def rows_of(seed: int) -> list[np.ndarray]:
    """Batches of rows for two ranks in turn, [K, 3] each, far from 0."""
    generator = np.random.default_rng(seed)
    return [1e4 + generator.normal(size=(k, 3)) for k in (5, 2, 0, 7, 3, 4)]


def running_moments(between: bool = False) -> list[Any]:
    """Statistics of all rows, shared after each pair of batches; `between` saves and restores them before the last."""
    moments, number = RunningMoments((3,)), RunningMoments()
    for index, rows in enumerate(rows_of(0)):
        if current().size > 1 and index % 2 != current().rank:
            continue
        moments.update(rows)
        number.update(rows[:, 0])
        if between and index >= 4:
            moments = _again(moments)
        share([moments, number])
    return [moments.mean, moments.var, moments.count, float(number.mean), float(number.var), number.count]


def _again(moments: RunningMoments) -> RunningMoments:
    restored = RunningMoments((3,))
    restored.load_state_dict(moments.state_dict())
    restored.load_unshared(moments.unshared())
    return restored


def counted() -> list[float]:
    """The bonus for 0..5 once all ranks have seen half of some states each, a state again and again on rank 0 alone."""
    bonus, seen = CountBonus(bits=8), torch.tensor([0.0, 0, 0, 0, 1, 2, 2, 3, 3, 5])[own(10), None]
    once = lambda obs: Transitions(
        obs, *[torch.zeros(len(obs))] * 2, obs, *[torch.ones(len(obs), dtype=torch.bool)] * 2
    )
    bonus.observe(once(seen))
    return bonus.rewards(once(torch.arange(6.0)[:, None])).tolist()


def told_header() -> str:
    from hsw.cli.summary import facts_of

    target = {"_target_": "hsw.X"}
    config = {
        "env": {"id": "Bandit", "num_envs": 3},
        **dict.fromkeys(("algorithm", "agent", "storage", "network"), target),
    }
    config |= {"eval_interval": None, "eval_episodes": 1, "threads": 1, "seed": 1, "num_train_steps": 1}
    made_agent = agent()
    try:
        return facts_of(made_agent, config, Path("x"), "")["environment"]
    finally:
        made_agent.env.close()


def network_moments() -> list[np.ndarray]:
    inputs = VectorInput(SpaceSpec("Box", (3,), "float32"), normalize=True)
    for index, rows in enumerate(rows_of(1)):
        if current().size > 1:
            rows = rows[: len(rows) // 2] if current().is_first else rows[len(rows) // 2 :]
        inputs.observe(torch.from_numpy(rows))
        assert index >= 0
    return numbers(inputs)


# -- loops --------------------------------------------------------------------------------------------------------


class Rows(Callback):
    """Keeps what it is told; asks to stop at a step."""

    every_rank = False

    def __init__(self, stop_at: int | None = None) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.evaluations: list[float] = []
        self.stop_at = stop_at

    def on_iteration_end(self, agent: Any, metrics: dict[str, float]) -> None:
        self.rows.append((agent.step, metrics))
        if self.stop_at is not None and agent.step >= self.stop_at:
            agent.request_stop("it is enough")

    def on_evaluation_end(self, agent: Any, scores: dict[str, Any]) -> None:
        self.evaluations.append(scores["mean"])


def looped(
    loop: str,
    budget: int,
    stop_at: int | None = None,
    signalled: int | None = None,
    signalled_batch: int | None = None,
    resumed: bool = False,
    every_rank: bool = False,
    slow_evaluation: float = 0.0,
    timeout: float = 0.0,
    **options: Any,
) -> Any:
    """Train an agent.

    Args:
        loop, options: Which, and of what.
        budget: Of steps.
        stop_at: A callback asks to stop there.
        signalled, signalled_batch: Rank 1 is asked to stop at its so-manyeth row, or batch.
        resumed: Another agent then goes on from the state.
        every_rank: The callback is told of on every rank.
        slow_evaluation: Seconds that an evaluation takes.
        timeout: Of the ranks meanwhile, if not 0.
    """
    watch = Rows(stop_at)
    watch.every_rank = every_rank
    trained = made(loop, watch, **options)
    first = rank_of_draw(trained)
    if current().rank == 1:
        _signal_at(trained, trained.env, "step", signalled)
        _signal_at(trained, trained.storage, "on_batch", signalled_batch)
    if slow_evaluation:
        trained.eval_env = partial(make_env, "Bandit", 1, seed=1)
        trained.eval = lambda: (time.sleep(slow_evaluation), type(trained).eval(trained, 2))[1]
    before = current().timeout
    current().timeout = timeout or before
    ended = run(trained, budget)
    if resumed:
        assert ended.startswith("Interrupted"), ended
        state = trained.state_dict()
        trained = made(loop, watch, **options)
        trained.load_state_dict(state)
        ended = run(trained, budget)
    current().timeout = before
    return {
        "ended": ended,
        "step": trained.step,
        "updates": trained.algorithm.num_updates,
        "rows": watch.rows,
        "evaluations": watch.evaluations,
        "scores": trained.last_scores and trained.last_scores["mean"],
        "best": trained.best_score,
        "weights": numbers(trained.policy),
        "episodes": trained.num_episodes,
        "first": first,
        "own": trained._own_steps,
    }


def made(loop: str, watch: Callback, batch_norm: bool = False, intrinsic: bool = False, **options: Any) -> Any:
    make = {"on_policy": agent, "off_policy": replay_agent, "distributed": distributed_agent}[loop]
    if loop == "off_policy":
        options = {"log_interval": 10, **options}
    if intrinsic:
        options["intrinsic_reward"] = CountBonus(bits=4)
    trained = make(callbacks=[watch], **options)
    if batch_norm:
        torch.manual_seed(0)
        encoder = trained.policy.encoder
        width = next(parameter for parameter in encoder.parameters()).shape[1]
        encoder.register_forward_pre_hook(lambda module, inputs: module.first(inputs[0].float()))
        encoder.first = torch.nn.BatchNorm1d(width)
    return trained


def run(trained: Any, budget: int) -> str:
    try:
        trained.train(budget)
    except (HswError, Interrupted) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        trained.env.close()
    return ""


def rank_of_draw(trained: Any) -> list[float]:
    """What this rank draws first: of torch's global generator, and of its storage's."""
    state, own_state = torch.get_rng_state(), trained.storage.random_state
    drawn = [float(torch.rand(())), str(own_state)]
    torch.set_rng_state(state)
    return drawn


def _signal_at(trained: Any, owner: Any, name: str, number: int | None) -> None:
    """Have a method's so-manyeth call come with a signal."""
    method, count = getattr(owner, name), itertools.count()

    def called(*arguments: Any) -> Any:
        if next(count) == number:
            trained.services.signals.requested = signal.SIGTERM
        return method(*arguments)

    setattr(owner, name, called)


def unequal(what: str) -> None:
    """Training that is refused: of weights that differ, or by an algorithm that reduces nothing."""
    trained = agent()
    if what == "weights" and current().rank == 1:
        next(trained.policy.parameters()).data.add_(1e-3)
    if what == "budget":
        trained.train(100 + current().rank)
        return
    with alone(*[hsw.algorithm.base] * (what == "gradients")):
        trained.train(200)
