"""Trainings on environments of which it is known what must come out: values, returns, finite numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from omegaconf import OmegaConf

from hsw.checking import truncation as truncations
from hsw.checking.children import ChildFailed
from hsw.checking.findings import Finding
from hsw.checking.parts import Parts

_ADVICE = (
    "after a truncation value the observation where the step led, after a termination nothing, and never what is next"
)


def truncation(parts: Parts) -> list[Finding]:
    """Whether a truncation is taken for an end, or the next episode for what follows."""
    return [*_returns(parts), *_values(parts)]


def _returns(parts: Parts) -> Iterator[Finding]:
    discount = OmegaConf.select(parts.base, "storage.discount")
    if "goals" in str(parts.kind) or discount is None or parts.base.get("intrinsic_reward") is not None:
        return
    errors: dict[Any, dict[str, float] | None] = {}
    for length, ends in ((None, "both"), (0, "truncated"), (0, "terminated")):
        kwargs = {**parts.base.env.kwargs, "pays": "potential", "length": length, "ends": ends, "discount": discount}
        errors[ends, length] = parts.session(env__kwargs=kwargs).train(truncations.errors_of_returns)
    control = errors["both", None]
    if control is None or max(control.values()) > 1e-2:
        return  # the storage changes rewards, or has no returns
    for ends in ("truncated", "terminated"):
        wrong = max((errors[ends, 0] or {"ends": 0.0}).values())
        if wrong > 1e-2:
            told = f"where episodes are {ends}, returns are off by up to {wrong:.3g}, and exact where none ends"
            code = "truncation" if ends == "truncated" else "termination"
            yield parts.fault(code, "storage", "before_gradients", told, _ADVICE)
            return


def _values(parts: Parts) -> Iterator[Finding]:
    if "goals" in str(parts.kind) or parts.base.get("intrinsic_reward") is not None:
        return
    learnt: dict[int | None, float] = {}
    for length in (None, 2):
        kwargs = {**parts.base.env.kwargs, "pays": "one", "length": length, "ends": "truncated", "constant": True}
        session = parts.session(
            env__kwargs=kwargs,
            storage__discount=0.5,
            algorithm__lr=0.01,
            algorithm__lr_schedule="constant",
            algorithm__alpha=1e-3,
            algorithm__learn_alpha=False,
            algorithm__tau=0.5,
            algorithm__entropy_coef=0.0,
        )
        session.config.num_train_steps = 320
        value = session.train(truncations.learnt_value)
        if value is None:
            return
        learnt[length] = value
    endless, cut = learnt[None], learnt[2]
    if 1.2 < endless < 2.5 and cut < endless - 0.25:  # beyond, the values have not settled, and tell nothing
        told = f"the value of episodes that pay 1 and are only ever truncated comes out as {cut:.2f}, and that of an "
        told += f"endless one as {endless:.2f}; both are 1 / (1 - discount) = 2"
        yield parts.fault("truncation", "algorithm", "update", told, _ADVICE)


def edges(parts: Parts) -> list[Finding]:
    """Whether numbers stay finite where rewards are huge, advantages all alike, episodes short, or actions single."""
    kwargs = dict(parts.base.env.kwargs)
    cases: dict[str, dict[str, Any]] = {
        "with rewards of a million": {"pays": "much"},
        "with episodes of one step": {"length": 1},
        "with rewards that are all 0": {"pays": "nothing", "constant": True},
    }
    if "discrete" in str(parts.kind):
        cases["with a single action"] = {"actions": "one"}
    for when, changes in cases.items():
        session = parts.session(env__kwargs={**kwargs, **changes})
        prepare = _worthless if "all 0" in when and not parts.actors else _finite
        try:
            bad = session.train(prepare)
        except ChildFailed as error:
            return [parts.failed("training", error, f" {when}")]
        if bad:
            told = f"after updates {when}, {bad} holds NaN or infinite numbers"
            advice = "guard divisions (a standard deviation may be 0) and exponentials, and clip what can overflow"
            return [parts.fault("not-finite", "algorithm", "update", told, advice)]
    return []


def _finite(agent: Any) -> Callable[[], str]:
    def bad() -> str:
        parts = agent.policy.state_dict()
        return next(
            (f"the policy's {name}" for name, part in parts.items() if not torch.isfinite(part.float()).all()), ""
        )

    return bad


def _worthless(agent: Any) -> Callable[[], str]:
    """With values of 0 and rewards of 0, advantages have no variance at all."""
    truncations.fix_values(agent, lambda obs: torch.zeros(len(obs["observation"] if isinstance(obs, dict) else obs)))
    return _finite(agent)
