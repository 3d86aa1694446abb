"""What an algorithm learns from, against what was collected; and which parameters learn at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hsw.agent import Agent
from hsw.checking.findings import Finding
from hsw.checking.play import method_place
from hsw.signatures import method_parameters

_CLOSE = 1e-3


def of_part(part: Any, method: str, code: str, message: str, advice: str, note: bool = False) -> Finding:
    """A finding about a part of the agent."""
    return Finding(code, message, advice, method_place(type(part), method), "agent", note)


class Recorder:
    """Keeps what goes into a storage, and holds against it what comes out. A `prepare` of a Session."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.rows: dict[bytes, dict[str, Any]] = {}  # by observation
        self.learnt: set[bytes] = set()
        self.found: dict[str, Finding] = {}
        storage: Any = agent.storage
        self._names = [name for name in method_parameters(type(storage), "add") if name != "args"]
        self._add, self._on_batch = storage.add, storage.on_batch
        storage.add = self._added
        self.handed = False
        storage.on_batch = self._seen
        self._generate = storage.generate_batches
        storage.generate_batches = self._generated

    def __call__(self) -> list[Finding]:
        return [*self.found.values(), *self._shares()]

    def _added(self, *args: Any, valid: Any = None, **extras: Any) -> Any:
        names = self._names if self._names[:1] != ["kwargs"] else []
        row = {**dict(zip(names, args, strict=False)), **extras}
        obs = row.get("obs", row.get("observations"))
        count = self.agent.env.num_envs
        counts = np.ones(count, bool) if valid is None else np.asarray(valid)
        for n in range(count if obs is not None else 0):
            key = _key(_of(obs, n))
            if key in self.rows and self.rows[key]["valid"]:
                continue
            one = {name: _of(value, n) for name, value in row.items() if _is_batch(value, count)}
            self.rows[key] = {**one, "valid": bool(counts[n]), "env": n}
        return self._add(*args, valid=valid, **extras)

    def _generated(self, *args: Any, **kwargs: Any) -> Any:
        for batch in self._generate(*args, **kwargs):
            if not self.handed:
                self._hold(batch)
            yield batch

    def _seen(self, batch: Any) -> Any:
        self.handed = True
        self._hold(batch)
        return self._on_batch(batch)

    def _hold(self, batch: Any) -> None:
        fields = batch if isinstance(batch, dict) else vars(batch)
        if "obs" not in fields or "actions" not in fields:
            return
        for b in range(len(fields["actions"])):
            self._hold_row({name: _of(value, b) for name, value in fields.items() if _is_batch(value, b + 1, True)})

    def _hold_row(self, row: dict[str, Any]) -> None:
        key = _key(row["obs"])
        stored = self.rows.get(key)
        if stored is None:
            self._tell("unknown-transition", "batches hold observations that were never collected", "generate_batches")
            return
        self.learnt.add(key)
        if not stored["valid"]:
            told = "batches hold rows that are resets: their action was ignored and their reward is none"
            self._tell("learns-from-resets", told, "generate_batches", "leave out what is not valid: add gets valid=")
            return
        if not _equal(row["actions"], stored["actions"]):
            told = "a batch pairs an observation with the action of another step"
            self._tell("mixed-transitions", told, "generate_batches", "draw all fields with the same indices")
        for name in ("log_probs", "values"):
            if name in row and name in stored and not _equal(row[name], stored[name]):
                told = f"a batch pairs an observation with the {name} of another step"
                self._tell("mixed-transitions", told, "generate_batches", "draw all fields with the same indices")
        if "next_obs" in row and not np.isclose(_vector(row["next_obs"])[0], _vector(row["obs"])[0]):
            told = "next_obs is of another episode than obs: something flows across an episode's end"
            advice = "store where the step led, which add gets as next_obs, and not what the next row shows"
            self._tell("leak-across-episodes", told, "generate_batches", advice)

    def _tell(self, code: str, told: str, method: str, advice: str = "hand out what add was given") -> None:
        self.found.setdefault(code, of_part(self.agent.storage, method, code, told, advice))

    def _shares(self) -> list[Finding]:
        """Environments whose transitions are never learnt from."""
        every: dict[int, int] = {}
        learnt: dict[int, int] = {}
        for key, row in self.rows.items():
            if row["valid"]:
                every[row["env"]] = every.get(row["env"], 0) + 1
                learnt[row["env"]] = learnt.get(row["env"], 0) + (key in self.learnt)
        if not self.learnt:
            return []
        never = [n for n, count in every.items() if count > 8 and not learnt[n]]
        if never:
            told = f"of {len(every)} environments, transitions of environment {never[0]} are never learnt from"
            advice = "draw from all of [T, N]; what is learnt from must not depend on env.num_envs"
            return [of_part(self.agent.storage, "generate_batches", "unused-environments", told, advice)]
        part = sum(learnt.values()) / max(1, sum(every.values()))
        if part < 0.5:
            told = f"only {part:.0%} of the valid transitions are ever learnt from"
            return [
                of_part(
                    self.agent.storage, "generate_batches", "unused-transitions", told, "draw from all that is stored"
                )
            ]
        return []


def dead_parameters(agent: Agent) -> Callable[[], list[str]]:
    """The names of trainable parameters that did not move, or only shrank. A `prepare` of a Session."""
    before = {name: part.detach().clone() for name, part in agent.policy.named_parameters() if part.requires_grad}

    def dead() -> list[str]:
        now = dict(agent.policy.named_parameters())
        return [name for name, part in before.items() if not _moved(part, now[name].detach())]

    return dead


def _moved(before: Tensor, now: Tensor) -> bool:
    if torch.equal(before, now):
        return False
    some = before.abs() > 1e-6
    if int(some.sum()) < 2:
        return True
    ratios = now[some] / before[some]  # weight decay alone shrinks all of them alike
    return bool((ratios.max() - ratios.min()).abs() > 1e-4 * ratios.abs().max()) or bool(
        (now[~some].abs() > 1e-6).any()
    )


def rows_apart(agent: Agent) -> Callable[[], list[Finding]]:
    """Whether act takes each row by itself. A `prepare` of a Session."""

    def compare() -> list[Finding]:
        obs = agent._tensors(agent.env.reset())
        policy, found = agent.policy, []
        policy.train(False)
        if policy.initial_memory(agent.env.num_envs) is not None:
            return []
        with torch.no_grad():
            together, extras = policy.act(obs, True)
            twice, _ = policy.act(obs, True)
            alone = [policy.act(_tree(obs, slice(n, n + 1)), True) for n in range(len(together))]
        apart = torch.cat([actions for actions, _ in alone])
        if not torch.allclose(together.float(), twice.float(), atol=_CLOSE):
            told = "act(obs, deterministic=True) gives other actions the second time"
            found.append(
                of_part(policy, "act", "act-not-deterministic", told, "draw nothing where deterministic is True")
            )
        if together.shape != apart.shape or not torch.allclose(together.float(), apart.float(), atol=_CLOSE):
            told = "act gives another action for an observation alone than for the same one in a batch"
            found.append(of_part(policy, "act", "rows-mixed", told, "compute each row by itself, along the first axis"))
        if set(extras) != set(type(policy).extras if not isinstance(type(policy).extras, property) else policy.extras):
            told = f"act gives {sorted(extras)} beside actions, and extras says {sorted(policy.extras)}"
            found.append(of_part(policy, "act", "extras", told, "let both name the same"))
        return found

    return compare


def bad_figures(rows: list[dict[str, Any]]) -> list[str]:
    """The names of an update's figures, in rows of metrics, that are no finite numbers."""
    learnt = [(name, value) for row in rows for name, value in row.items() if name.startswith("learn/")]
    return sorted({name.removeprefix("learn/") for name, value in learnt if not _finite(value)})


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _tree(obs: Any, index: Any) -> Any:
    return {key: _tree(part, index) for key, part in obs.items()} if isinstance(obs, dict) else obs[index]


def _of(batch: Any, n: int) -> Any:
    return {key: _of(part, n) for key, part in batch.items()} if isinstance(batch, dict) else np.asarray(_cpu(batch)[n])


def _cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _is_batch(value: Any, count: int, at_least: bool = False) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_is_batch(part, count, at_least) for part in value.values())
    if not isinstance(value, Tensor | np.ndarray) or not value.ndim:
        return False
    return len(value) >= count if at_least else len(value) == count


def _vector(obs: Any) -> np.ndarray:
    return np.asarray(obs["observation"] if isinstance(obs, dict) else obs, np.float32)


def _key(obs: Any) -> bytes:
    return _vector(obs).tobytes()


def _equal(one: Any, other: Any) -> bool:
    return bool(np.allclose(np.ravel(one).astype(np.float64), np.ravel(other).astype(np.float64), atol=_CLOSE))
