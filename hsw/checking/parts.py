"""An agent's parts as a command line puts them together, on an environment that they are for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hsw.build import build_agent
from hsw.checking.children import ChildFailed, in_child
from hsw.checking.findings import Finding
from hsw.checking.play import method_place
from hsw.checking.sessions import Session, shrunk
from hsw.config.targets import resolve_target
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


class Parts:
    """The parts of one command line.

    Args:
        composed: Composes it, with overrides that it leaves open.
        said: Its keys.
        folder: For runs.

    Attributes:
        kind: Of the environment that they are for: discrete, box, goals or discrete goals.
        base: Their config, made small.
        targets: The classes of algorithm, storage and network.
        actors: Actors collect for them, in processes of their own.

    Raises:
        ConfigError: If they do not go together, on no kind of environment.
    """

    straight: Session  # that ran to its end

    def __init__(self, composed: Compose, said: set[str], folder: Path) -> None:
        self._composed, self._folder, self._number = composed, folder, 0
        self.said = {key for key in said if not key.startswith("env")}
        self.kind, self.base = self._fitting()
        self.targets = {
            part: resolve_target(self.base[part]._target_, self.base.allow)
            for part in ("algorithm", "storage", "network")
        }
        self.targets = {part: getattr(target, "__self__", target) for part, target in self.targets.items()}
        self.actors = "num_storages" in self.base.storage

    def _fitting(self) -> tuple[str, DictConfig]:
        """The first environment that the parts are for, and a config on it."""
        errors: list[ConfigError] = []
        for kind in _KINDS:
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
        raise errors[0]

    def _on_probe(self, kind: str) -> DictConfig:
        # The command line's own environment is checked by itself; its parts are checked where all values are known.
        return self._composed("~preset", *_PROBE, *_KINDS[kind])

    def session(self, **changes: Any) -> Session:
        """A training of them, in a folder of its own; changes as in shrunk."""
        self._number += 1
        config = shrunk(self.base, self.said, **changes)
        return Session(config, self._folder / str(self._number))

    def failed(self, name: str, error: ChildFailed, when: str = "") -> Finding:
        """What a training that failed is as a finding."""
        what = {"NonFiniteError": "not-finite"}.get(error.kind, "raises" if error.kind else "process-ends")
        place = error.place or self.place("algorithm", "update")
        told = f"{name}{when}: {f'{error.kind}: ' if error.kind else 'it '}{error}"
        return Finding(what, told, "mend what raises there", place, "agent")

    def place(self, part: str, method: str) -> str:
        """Where a part's method is written."""
        return method_place(self.targets[part], method)

    def is_hsws(self, part: str) -> bool:
        """Whether a part is hsw's own."""
        return bool(self.targets[part].__module__.startswith("hsw."))

    def fault(self, code: str, part: str, method: str, message: str, advice: str) -> Finding:
        """A finding about a part."""
        return Finding(code, message, advice, self.place(part, method), "agent")


def _build(config: DictConfig) -> None:
    build_agent(config.copy(), Run()).env.abandon()
