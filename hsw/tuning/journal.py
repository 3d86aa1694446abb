"""A study on disk: Optuna's journal, a folder for each trial, and locks that say which process has which trial.

The journal is a list of lines that grows. Each trial's values are also in its folder, written first: a journal that
was cut off goes on as if nothing had been lost, and the trials' jobs are done already.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from hsw.directory import Directory, LinkError, read_file
from hsw.errors import ConfigError, CorruptError, ResourceError
from hsw.run.folder import RunFolder, write_whole
from hsw.run.status import write_json

JOURNAL, VALUES, CLAIMS = "journal.jsonl", "trial.json", ".claims"
_LARGEST = 2**22  # bytes
_POLL = 0.05  # seconds between two looks at a lock

Direction = Literal["maximize", "minimize"]
Propose = Callable[[int, list[FrozenTrial]], dict[str, Any]]


class JournalLock:
    """A lock on the journal that ends with its process, and under which nobody finds half a line.

    Args:
        path: Of the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _cut_torn(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def _cut_torn(descriptor: int) -> None:
    """Cut off what is no whole line at the end: whoever wrote it is gone, and nobody has read it."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - 65536)
        at = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if at >= 0:
            end = begin + at + 1
            break
        end = begin
    if end < size:
        os.ftruncate(descriptor, end)


@dataclass
class Taken:
    """A trial that is this process's.

    Attributes:
        number: Of it.
        values: By parameter.
        attrs: What the journal has of it.
        claim: Its lock.
    """

    number: int
    values: dict[str, Any]
    attrs: dict[str, Any]
    claim: RunFolder


class Journal:
    """The trials of a study, for every process that works on it.

    Args:
        folder: Of the study.
        space: What varies.
        directions: maximize or minimize, of each objective.

    Raises:
        CorruptError: If the journal cannot be read.
        ResourceError: If it cannot be written.
    """

    def __init__(self, folder: Path, space: Mapping[str, BaseDistribution], directions: list[Direction]) -> None:
        self.folder, self.space, self.directions = folder, dict(space), directions
        self._thread = threading.RLock()
        path = folder / JOURNAL
        with self._telling():
            with Directory.open(folder) as directory:
                if directory.kind(JOURNAL) == "link":
                    raise LinkError(f"{path} is a link, and what is in a study's folder must be its own; delete it")
            lock = JournalLock(path)
            lock.acquire()  # also ends the last line
            lock.release()
            self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]
            with self.locked():
                self.study = optuna.create_study(
                    storage=self._storage,
                    study_name="hsw",
                    directions=directions,
                    sampler=optuna.samplers.RandomSampler(),
                    load_if_exists=True,
                )
            self._study_id = self._storage.get_study_id_from_name("hsw")

    def trials(self) -> list[FrozenTrial]:
        """All of them, in the order of their numbers."""
        with self._telling():
            return self.study.get_trials(deepcopy=False)

    def take(self, limit: int, propose: Propose) -> Taken | None:
        """A trial for this process: one whose process is gone, else a new one; None if there is none to be had.

        Args:
            limit: How many there are to be.
            propose: The values of a new one, of its number and the trials before it.
        """
        with self.locked():
            trials = self.trials()
            for trial in trials[:limit]:
                if trial.state == TrialState.RUNNING and (claim := self.claim(f"{trial.number:04d}")):
                    return Taken(trial.number, dict(trial.params), dict(trial.user_attrs), claim)
            number = len(trials)
            claim = self.claim(f"{number:04d}") if number < limit else None
            if claim is None:
                return None
            values = self._stored(number)
            if values is None:
                values = propose(number, trials)
                place = self.place(number)
                _make(place)
                write_json(place / VALUES, {"values": values})
            running = create_trial(state=TrialState.RUNNING, params=values, distributions=self.space)
            with self._telling():
                self.study.add_trial(running)
            return Taken(number, values, {}, claim)

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep something that a running trial has told."""
        with self._telling():
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            self._storage.set_trial_user_attr(trial, key, value)

    def report(self, number: int, step: int, value: float) -> None:
        """How good a trial was after so many steps, for the sampler."""
        with self._telling():
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            self._storage.set_trial_intermediate_value(trial, step, value)

    def tell(self, taken: Taken, values: list[float] | None, state: TrialState) -> None:
        """A trial has ended, and is nobody's any more."""
        with self._telling():
            self.study.tell(taken.number, values, state)
        taken.claim.close()

    def finished(self, limit: int) -> bool:
        """Whether all trials have ended, whoever had them."""
        ended = [trial for trial in self.trials()[:limit] if trial.state.is_finished()]
        return len(ended) == limit

    def place(self, number: int) -> Path:
        return self.folder / f"trial-{number:04d}"

    def claim(self, name: str) -> RunFolder | None:
        """A lock that ends with this process; None if another has it."""
        place = self.folder / CLAIMS / name
        try:
            return RunFolder(place)
        except ConfigError:  # in use
            return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else takes a trial meanwhile, here or on another machine."""
        with self._thread:
            while (claim := self.claim("study")) is None:
                time.sleep(_POLL)
            try:
                yield
            finally:
                claim.close()

    def _stored(self, number: int) -> dict[str, Any] | None:
        """The values in a trial's folder, if the journal has lost them.

        Raises:
            CorruptError: If they are none of this space.
        """
        place = self.place(number)
        if not os.path.lexists(place / VALUES):
            return None
        try:
            values = json.loads(read_file(place, VALUES, _LARGEST))["values"]
            fits = values.keys() == self.space.keys() and all(
                self.space[name]._contains(self.space[name].to_internal_repr(value)) for name, value in values.items()
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            fits = False
        if not fits:
            raise CorruptError(f"{place / VALUES} has no values of this study's space; delete {place}")
        return dict(values)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong with the journal, in a sentence."""
        path = self.folder / JOURNAL
        try:
            yield
        except (ConfigError, CorruptError, ResourceError):
            raise
        except OSError as error:
            raise ResourceError(f"cannot use {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AssertionError, IndexError, AttributeError) as error:
            raise CorruptError(
                f"{path} cannot be read ({type(error).__name__}); move it away, and the same command makes it again of "
                "the trials' folders"
            ) from error


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make {place}: {error.strerror or error}") from error


def keep_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Say which study a folder is of, or check that it is this one.

    Raises:
        ConfigError: If it is of another.
        CorruptError: If that cannot be read.
        ResourceError: If it cannot be written.
    """
    path = folder / "study.json"
    if not os.path.lexists(path):
        _make(folder)
        write_whole(path, (json.dumps({"identity": identity}, indent=1) + "\n").encode())
        return
    try:
        theirs = json.loads(read_file(folder, path.name, _LARGEST))["identity"]
        names = sorted(key for key in {*theirs, *identity} if theirs.get(key) != identity.get(key))
    except LinkError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptError(f"{path} cannot be read; take another tune.name=<name>") from error
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        shown = ", ".join(f"{name}={theirs.get(name, '-')} (here {identity.get(name, '-')})" for name in names[:3])
        raise ConfigError(f"{folder} holds a study with {shown}{more}; take another tune.name=<name>")
