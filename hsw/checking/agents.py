"""All checks of an agent's parts: an algorithm, a storage, a policy, as a config puts them together."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from hsw.build import build_agent
from hsw.checking import learning, sessions, truncation
from hsw.checking.children import ChildFailed, in_child
from hsw.checking.findings import Finding, Report
from hsw.checking.play import method_place
from hsw.checking.sessions import Session, first_of, shrunk
from hsw.config.targets import resolve_target
from hsw.directory import lines_of
from hsw.errors import ConfigError
from hsw.run.services import Run

_PROBE = ("env=gym", "env.id=hsw.checking.problems:Probe-v0")
_KINDS = {
    "discrete": (),
    "box": ("env.kwargs.actions=box",),
    "goals": ("env.kwargs.goals=true", "env.kwargs.actions=box"),
    "discrete goals": ("env.kwargs.goals=true",),
}
Compose = Callable[..., DictConfig]


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
        return _Checks(composed, said, Path(folder)).all(only)


class _Checks:
    """The checks of one command line's parts.

    Args:
        composed, said: As in check_agent.
        folder: For runs.
    """

    def __init__(self, composed: Compose, said: set[str], folder: Path) -> None:
        self._composed, self._folder, self._number = composed, folder, 0
        self.said = {key for key in said if not key.startswith("env")}
        self.kind, self.base = self._fitting(bool(said & {"env", "env.id"}))
        self.targets = {
            part: resolve_target(self.base[part]._target_, self.base.allow) for part in ("algorithm", "storage", "network")
        }
        self.targets = {part: getattr(target, "__self__", target) for part, target in self.targets.items()}
        self.actors = "num_storages" in self.base.storage

    def _fitting(self, own: bool) -> tuple[str | None, DictConfig]:
        """The first environment that the parts are for, and a config on it."""
        errors: list[ConfigError] = []
        for kind, kwargs in _KINDS.items():
            try:
                config = shrunk(self._on_probe(kind), self.said)
                in_child(partial(_build, config))
                return kind, config
            except ConfigError as error:
                errors.append(error)
            except ChildFailed as error:
                if error.kind != "ConfigError":
                    return kind, config
                errors.append(ConfigError(str(error)))
        del own
        raise errors[0]

    def _on_probe(self, kind: str) -> DictConfig:
        # The command line's own environment is checked by itself; its parts are checked where all values are known.
        return self._composed("~preset", *_PROBE, *_KINDS[kind])

    def _session(self, **changes: Any) -> Session:
        self._number += 1
        config = shrunk(self._config(), self.said, **changes)
        return Session(config, self._folder / str(self._number))

    def _config(self) -> DictConfig:
        return self.base.copy()

    def all(self, only: Collection[str]) -> Report:
        """Make them, one after another."""
        report = Report()
        straight = self._session()
        try:
            dead = straight.train(learning.dead_parameters)
        except ChildFailed as error:
            report.checked("training", [self._failed("training", error)])
            return report
        report.passed.append("training")
        self._straight = straight
        checks: dict[str, Callable[[], list[Finding]]] = {
            "gradients": partial(self._gradients, dead),
            "figures": self._figures,
            "policy": self._policy,
            "transitions": self._transitions,
            "truncation": self._truncation,
            "edges": self._edges,
        }
        if self.actors:
            for name in ("repeats", "resume", "sync and async", "transitions", "truncation"):
                report.skipped[name] = "actors are not in step with the learner, and nothing of it repeats itself"
                checks.pop(name, None)
        elif not only or {"repeats", "resume", "sync and async"} & {*only}:
            repeats = self._repeats()
            report.checked("repeats", repeats)
            if not repeats:
                checks |= {"resume": self._resume, "sync and async": self._async}
        checks["cuda"] = self._cuda
        for name, check in checks.items():
            if only and name not in only:
                continue
            try:
                report.checked(name, check())
            except ChildFailed as error:
                report.checked(name, [self._failed(name, error)])
            except _Skipped as why:
                report.skipped[name] = str(why)
        return report

    def _failed(self, name: str, error: ChildFailed, when: str = "") -> Finding:
        what = {"NonFiniteError": "not-finite"}.get(error.kind, "raises" if error.kind else "process-ends")
        place = error.place or self._place("algorithm", "update")
        told = f"{name}{when}: {f'{error.kind}: ' if error.kind else 'it '}{error}"
        return Finding(what, told, "mend what raises there", place, "agent")

    def _place(self, part: str, method: str) -> str:
        return method_place(self.targets[part], method)

    def _is_hsws(self, part: str) -> bool:
        return bool(self.targets[part].__module__.startswith("hsw."))

    def _fault(self, code: str, part: str, method: str, message: str, advice: str) -> Finding:
        return Finding(code, message, advice, self._place(part, method), "agent")

    # -- one training, looked at ------------------------------------------------------------------------------------

    def _gradients(self, dead: list[str]) -> list[Finding]:
        if dead:  # an update may come rarely
            config = shrunk(self._config(), self.said)
            config.num_train_steps = 6 * sessions.BUDGET
            self._number += 1
            again = Session(config, self._folder / str(self._number)).train(learning.dead_parameters)
            dead = [name for name in dead if name in again]
        if not dead:
            return []
        names = ", ".join(dead[:4]) + (f" and {len(dead) - 4} more" if len(dead) > 4 else "")
        told = f"these parameters of the policy never move, so that no gradient reaches them: {names}"
        advice = "give them to an optimiser and let the loss depend on them without detach(), or set requires_grad=False"
        whose, method = ("network", "evaluate") if self._is_hsws("algorithm") else ("algorithm", "update")
        return [self._fault("dead-parameters", whose, method, told, advice)]

    def _figures(self) -> list[Finding]:
        with (self._straight.folder / "metrics.jsonl").open("rb") as file:
            rows = [json.loads(line) for line in lines_of(file)]
        return learning.figures_of(rows, _Named(self.targets["algorithm"]))

    def _policy(self) -> list[Finding]:
        found: list[Finding] = self._session(num_train_steps=32).train(learning.rows_apart)
        return found

    def _transitions(self) -> list[Finding]:
        found: dict[str, Finding] = {}
        for num_envs in (1, 3):
            fewer = {"algorithm__num_mini_batch": 1} if num_envs == 1 else {}
            session = self._session(env__num_envs=num_envs, **fewer)
            for one in session.train(learning.Recorder):
                found.setdefault(one.code, one)
        return list(found.values())

    # -- several trainings, compared --------------------------------------------------------------------------------

    def _repeats(self) -> list[Finding]:
        again = self._session(eval_interval=48)
        again.train()
        difference = first_of(_learnt(self._straight), _learnt(again))
        if difference is None:
            return []
        twin = self._session()
        twin.train()
        if first_of(_learnt(self._straight), _learnt(twin)) is None:
            told = f"a run that is evaluated on its way learns something else: {difference}"
            advice = "let act change nothing that training uses, and keep what the policy remembers in initial_memory"
            return [self._fault("evaluation-changes", "network", "act", told, advice)]
        told = f"two runs of one seed are not the same: {difference}"
        advice = "draw from torch's generator, or the storage's own; not from one that is made without the run's seed"
        return [self._fault("not-repeatable", "algorithm", "update", told, advice)]

    def _resume(self) -> list[Finding]:
        stops = {
            "a budget that is spent": sessions.ask_to_end,
            "SIGTERM": sessions.terminate,
            "kill -9 after a checkpoint": sessions.kill,
        }
        for name, stop in stops.items():
            session = self._session()
            if stop is sessions.kill:
                session.killed(stop)
            else:
                session.train(stop)
            saved = session.attributes("saved")
            try:
                session.train(resume=True)
            except ChildFailed as error:
                return [self._failed("resume", error, f" after {name}")]
            difference = first_of(self._straight.state(), session.state())
            if difference is not None:
                return [self._outside(name, difference, saved, session.attributes("loaded"))]
        return []

    def _outside(self, stop: str, difference: Any, saved: dict[str, str], loaded: dict[str, str]) -> Finding:
        """What was not restored, by the attributes that differ."""
        known = {f"{cls.__name__}.{name}" for cls in self.targets.values() for name in sessions.of_hsw(cls)}
        differing = [name for name, value in saved.items() if loaded.get(name) != value]
        lost = [name for name in differing if re.split(r"[\[\]]", ".".join(name.split(".")[:2]))[0] not in known]
        lost.sort(key=lambda name: (" numbers (" in saved[name], name.count(".")))
        named = lost[0].partition(".")[0] if lost else ""
        owner = next((part for part, target in self.targets.items() if target.__name__ == named), "algorithm")
        what = "; ".join(f"{name} was {_brief(saved[name])}, and {_brief(loaded.get(name, 'gone'))}" for name in lost[:3])
        told = f"a run that is resumed after {stop} is not the run that was never stopped"
        told += f": {what} once it was loaded" if what else f": {difference}"
        name = f" {lost[0]}" if lost else " what update changes"
        advice = f"put{name} into state_dict and take it up in load_state_dict (of a policy, make it a buffer)"
        return self._fault("lost-on-resume", owner, "state_dict", told, advice)

    def _async(self) -> list[Finding]:
        other = self._session(env__backend="async")
        other.train()
        difference = first_of(_learnt(self._straight), _learnt(other))
        if difference is None:
            return []
        told = f"with env.backend=async another policy is learnt than with sync: {difference}"
        advice = "let nothing depend on whether environments share the process: copy what is kept of them"
        return [self._fault("sync-async", "storage", "add", told, advice)]

    # -- what is known of certain environments ----------------------------------------------------------------------

    def _truncation(self) -> list[Finding]:
        return [*self._returns(), *self._values()]

    def _returns(self) -> Iterator[Finding]:
        discount = OmegaConf.select(self.base, "storage.discount")
        if "goals" in str(self.kind) or discount is None or self.base.get("intrinsic_reward") is not None:
            return
        errors: dict[Any, dict[str, float] | None] = {}
        for length, ends in ((None, "both"), (0, "truncated"), (0, "terminated")):
            kwargs = {**self.base.env.kwargs, "pays": "potential", "length": length, "ends": ends, "discount": discount}
            errors[ends, length] = self._session(env__kwargs=kwargs).train(truncation.errors_of_returns)
        control = errors["both", None]
        if control is None or max(control.values()) > 1e-2:
            return  # the storage changes rewards, or has no returns
        for ends in ("truncated", "terminated"):
            wrong = max((errors[ends, 0] or {"ends": 0.0}).values())
            if wrong > 1e-2:
                told = f"where episodes are {ends}, returns are off by up to {wrong:.3g}, and exact where none ends"
                storage = _Named(self.targets["storage"])
                yield truncation.leak((storage, "before_gradients"), told, "truncation" if ends == "truncated" else "termination")
                return

    def _values(self) -> Iterator[Finding]:
        if "goals" in str(self.kind) or self.base.get("intrinsic_reward") is not None:
            return
        learnt: dict[Any, float | None] = {}
        for length in (None, 2):
            kwargs = {**self.base.env.kwargs, "pays": "one", "length": length, "ends": "truncated", "constant": True}
            session = self._session(
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
            learnt[length] = session.train(truncation.learnt_value)
            if learnt[length] is None:
                return
        endless, cut = learnt[None], learnt[2]
        assert endless is not None and cut is not None
        if endless > 1.2 and cut < endless - 0.25:
            told = f"the value of episodes that pay 1 and are only ever truncated comes out as {cut:.2f}, that of an endless one"
            told += f" as {endless:.2f}; both are 1 / (1 - discount) = 2"
            yield truncation.leak((_Named(self.targets["algorithm"]), "update"), told)

    def _edges(self) -> list[Finding]:
        kwargs = dict(self.base.env.kwargs)
        cases: dict[str, dict[str, Any]] = {
            "with rewards of a million": {"pays": "much"},
            "with episodes of one step": {"length": 1},
            "with rewards that are all 0": {"pays": "nothing", "constant": True},
        }
        if "discrete" in str(self.kind):
            cases["with a single action"] = {"actions": "one"}
        for when, changes in cases.items():
            session = self._session(env__kwargs={**kwargs, **changes})
            prepare = _worthless if "all 0" in when and not self.actors else _finite
            try:
                bad = session.train(prepare)
            except ChildFailed as error:
                return [self._failed("training", error, f" {when}")]
            if bad:
                told = f"after updates {when}, {bad} holds NaN or infinite numbers"
                advice = "guard divisions (a standard deviation may be 0) and exponentials, and clip what can overflow"
                return [self._fault("not-finite", "algorithm", "update", told, advice)]
        return []

    def _cuda(self) -> list[Finding]:
        session = self._session(device="cuda")
        if not in_child(torch.cuda.is_available):
            raise _Skipped("there is no such device here")
        try:
            session.train()
        except ChildFailed as error:
            return [self._failed("training", error, " with device=cuda")]
        return []


class _Skipped(Exception):
    """A check that cannot be made here."""


def _Named(target: type) -> Any:
    """Something of a class, of which nothing but the class is asked."""
    return target.__new__(target)


def _build(config: DictConfig) -> None:
    build_agent(config.copy(), Run()).env.abandon()


def _learnt(session: Session) -> dict[str, Any]:
    state = session.state()
    return {key: state[key] for key in ("policy", "algorithm") if key in state}


def _brief(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:37]}..."


def _finite(agent: Any) -> Callable[[], str]:
    def bad() -> str:
        parts = agent.policy.state_dict()
        return next((f"the policy's {name}" for name, part in parts.items() if not torch.isfinite(part.float()).all()), "")

    return bad


def _worthless(agent: Any) -> Callable[[], str]:
    """With values of 0 and rewards of 0, advantages have no variance at all."""
    truncation.fix_values(agent, lambda obs: torch.zeros(len(obs["observation"] if isinstance(obs, dict) else obs)))
    return _finite(agent)
