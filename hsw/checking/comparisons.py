"""Trainings that must come to the same: repeated, evaluated on their way, stopped and resumed, in worker processes."""

from __future__ import annotations

import re
from typing import Any

from hsw.checking import sessions
from hsw.checking.children import ChildFailed
from hsw.checking.findings import Finding
from hsw.checking.parts import Parts
from hsw.checking.sessions import Session, first_of


def repeats(parts: Parts) -> list[Finding]:
    """Whether a seed gives one run, also where it is evaluated on its way."""
    again = parts.session(eval_interval=48)
    again.train()
    difference = first_of(_learnt(parts.straight), _learnt(again))
    if difference is None:
        return []
    twin = parts.session()
    twin.train()
    if first_of(_learnt(parts.straight), _learnt(twin)) is None:
        told = f"a run that is evaluated on its way learns something else: {difference}"
        advice = "let act change nothing that training uses, and keep what the policy remembers in initial_memory"
        return [parts.fault("evaluation-changes", "network", "act", told, advice)]
    told = f"two runs of one seed are not the same: {difference}"
    advice = "draw from torch's generator, or the storage's own; not from one that is made without the run's seed"
    return [parts.fault("not-repeatable", "algorithm", "update", told, advice)]


def resume(parts: Parts) -> list[Finding]:
    """Whether a run that is stopped, in three ways, and resumed is the run that was never stopped."""
    stops = {
        "a budget that is spent": sessions.ask_to_end,
        "SIGTERM": sessions.terminate,
        "kill -9 after a checkpoint": sessions.kill,
    }
    for name, stop in stops.items():
        session = parts.session()
        if stop is sessions.kill:
            session.killed(stop)
        else:
            session.train(stop)
        saved = session.attributes("saved")
        try:
            session.train(resume=True)
        except ChildFailed as error:
            return [parts.failed("resume", error, f" after {name}")]
        difference = first_of(parts.straight.state(), session.state())
        if difference is not None:
            return [_outside(parts, name, difference, saved, session.attributes("loaded"))]
    return []


def _outside(parts: Parts, stop: str, difference: Any, saved: dict[str, str], loaded: dict[str, str]) -> Finding:
    """What was not restored, by the attributes that differ."""
    known = {f"{cls.__name__}.{name}" for cls in parts.targets.values() for name in sessions.of_hsw(cls)}
    differing = [name for name, value in saved.items() if loaded.get(name) != value]
    lost = [name for name in differing if re.split(r"[\[\]]", ".".join(name.split(".")[:2]))[0] not in known]
    lost.sort(key=lambda name: (" numbers (" in saved[name], name.count(".")))
    named = lost[0].partition(".")[0] if lost else ""
    owner = next((part for part, target in parts.targets.items() if target.__name__ == named), "algorithm")
    what = "; ".join(f"{name} was {_brief(saved[name])}, and {_brief(loaded.get(name, 'gone'))}" for name in lost[:3])
    told = f"a run that is resumed after {stop} is not the run that was never stopped"
    told += f": {what} once it was loaded" if what else f": {difference}"
    name = f" {lost[0]}" if lost else " what update changes"
    advice = f"put{name} into state_dict and take it up in load_state_dict (of a policy, make it a buffer)"
    return parts.fault("lost-on-resume", owner, "state_dict", told, advice)


def sync_and_async(parts: Parts) -> list[Finding]:
    """Whether it matters in which process the environments are."""
    other = parts.session(env__backend="async")
    other.train()
    difference = first_of(_learnt(parts.straight), _learnt(other))
    if difference is None:
        return []
    told = f"with env.backend=async another policy is learnt than with sync: {difference}"
    advice = "let nothing depend on whether environments share the process: copy what is kept of them"
    return [parts.fault("sync-async", "storage", "add", told, advice)]


def _learnt(session: Session) -> dict[str, Any]:
    state = session.state()
    return {key: state[key] for key in ("policy", "algorithm") if key in state}


def _brief(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:37]}..."
