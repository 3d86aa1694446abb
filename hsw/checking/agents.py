"""All checks of an agent's parts: an algorithm, a storage, a policy, as a config puts them together."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch

from hsw.checking import learning
from hsw.checking.children import ChildFailed, in_child
from hsw.checking.comparisons import repeats, resume, sync_and_async
from hsw.checking.edges import edges, truncation
from hsw.checking.findings import Finding, Report
from hsw.checking.parts import Compose, Parts
from hsw.checking.sessions import BUDGET
from hsw.directory import lines_of


def check_agent(composed: Compose, said: set[str], only: Collection[str] = ()) -> Report:
    """Look at the parts that a command line names.

    Args:
        composed: Composes it, with overrides that it leaves open.
        said: Its keys.
        only: The names of the checks to make; none for all.

    Raises:
        ConfigError: If the parts do not go together.
    """
    # Every child would import what the first optimiser of a process imports.
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with tempfile.TemporaryDirectory(prefix="hsw-check-") as folder:
        return _all(Parts(composed, said, Path(folder)), only)


def _all(parts: Parts, only: Collection[str]) -> Report:
    """Make them, one after another."""
    report = Report()
    straight = parts.session()
    try:
        dead = straight.train(learning.dead_parameters)
    except ChildFailed as error:
        report.checked("training", [parts.failed("training", error)])
        return report
    report.passed.append("training")
    parts.straight = straight
    checks: dict[str, Callable[[], list[Finding]]] = {
        "gradients": partial(_gradients, parts, dead),
        "figures": partial(_figures, parts),
        "policy": partial(_policy, parts),
        "transitions": partial(_transitions, parts),
        "truncation": partial(truncation, parts),
        "edges": partial(edges, parts),
    }
    if parts.actors:
        for name in ("repeats", "resume", "sync and async", "transitions", "truncation"):
            report.skipped[name] = "actors are not in step with the learner, and nothing of it repeats itself"
            checks.pop(name, None)
    elif not only or {"repeats", "resume", "sync and async"} & {*only}:
        try:
            again = repeats(parts)
        except ChildFailed as error:
            again = [parts.failed("repeats", error)]
        report.checked("repeats", again)
        if not again:
            checks |= {"resume": partial(resume, parts), "sync and async": partial(sync_and_async, parts)}
    checks["cuda"] = partial(_cuda, parts)
    for name, check in checks.items():
        if only and name not in only:
            continue
        try:
            report.checked(name, check())
        except ChildFailed as error:
            report.checked(name, [parts.failed(name, error)])
        except _Skipped as why:
            report.skipped[name] = str(why)
    return report


def _gradients(parts: Parts, dead: list[str]) -> list[Finding]:
    if dead:  # an update may come rarely
        session = parts.session()
        session.config.num_train_steps = 6 * BUDGET
        again = session.train(learning.dead_parameters)
        dead = [name for name in dead if name in again]
    if not dead:
        return []
    names = ", ".join(dead[:4]) + (f" and {len(dead) - 4} more" if len(dead) > 4 else "")
    told = f"these parameters of the policy never move, so that no gradient reaches them: {names}"
    advice = "give them to an optimiser and let the loss depend on them without detach(), or set requires_grad=False"
    whose, method = ("network", "evaluate") if parts.is_hsws("algorithm") else ("algorithm", "update")
    return [parts.fault("dead-parameters", whose, method, told, advice)]


def _figures(parts: Parts) -> list[Finding]:
    with (parts.straight.folder / "metrics.jsonl").open("rb") as file:
        rows = [json.loads(line) for line in lines_of(file)]
    bad = learning.bad_figures(rows)
    if not bad:
        return []
    told = f"update's figure {bad[0]} is not a finite number"
    return [parts.fault("figures", "algorithm", "update", told, "return floats: float(tensor.detach())")]


def _policy(parts: Parts) -> list[Finding]:
    found: list[Finding] = parts.session(num_train_steps=32).train(learning.rows_apart)
    return found


def _transitions(parts: Parts) -> list[Finding]:
    found: dict[str, Finding] = {}
    for num_envs in (1, 3):
        fewer = {"algorithm__num_mini_batch": 1} if num_envs == 1 else {}
        session = parts.session(env__num_envs=num_envs, **fewer)
        for one in session.train(learning.Recorder):
            found.setdefault(one.code, one)
    return list(found.values())


def _cuda(parts: Parts) -> list[Finding]:
    session = parts.session(device="cuda")
    if not in_child(torch.cuda.is_available):
        raise _Skipped("there is no such device here")
    try:
        session.train()
    except ChildFailed as error:
        return [parts.failed("training", error, " with device=cuda")]
    return []


class _Skipped(Exception):
    """A check that cannot be made here."""
