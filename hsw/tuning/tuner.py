"""A study from its command line to its end: workers that take trials, the best ones once more, and what is left."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from omegaconf import DictConfig

from hsw import deadline
from hsw.config.files import refuse_secrets
from hsw.config.resolved import identity
from hsw.errors import Interrupted, SweepError
from hsw.output import one_line, printable
from hsw.run.watched import guarded
from hsw.secrets import redact
from hsw.tuning.checking import check_space, composed, composing, own
from hsw.tuning.confirm import Confirmation, best_trials
from hsw.tuning.findings import write_report
from hsw.tuning.jobs import Jobs
from hsw.tuning.journal import Direction, Journal, Taken, keep_identity
from hsw.tuning.preset import write_best
from hsw.tuning.results import Results, trial_line
from hsw.tuning.samplers import proposer
from hsw.tuning.settings import Command, read_command
from hsw.tuning.space import Parameter, grid, read_space
from hsw.tuning.trials import Plan, Stopped, TrialRunner

_POLL = 0.5  # seconds between two looks at what other machines do
_TRIALS = 20


class Source(Protocol):
    """Work for several workers, here and on other machines."""

    def take(self) -> Callable[[int], None] | None: ...

    def done(self) -> bool: ...


class Trials:
    """The trials of a study as work.

    Args:
        plan, journal, jobs: Of the study.
        limit: How many there are to be.
    """

    def __init__(self, plan: Plan, journal: Journal, jobs: Jobs, limit: int, quiet: bool) -> None:
        self._journal, self._limit, self._quiet, self._plan = journal, limit, quiet, plan
        self._runner = TrialRunner(plan, journal, jobs)
        self._propose = proposer(plan.settings.sampler, plan.space, journal.directions, plan.seeds[0])

    def take(self) -> Callable[[int], None] | None:
        taken = self._journal.take(self._limit, self._propose)
        return (lambda slot: self._carry_out(taken, slot)) if taken else None

    def done(self) -> bool:
        return self._journal.finished(self._limit)

    def _carry_out(self, taken: Taken, slot: int) -> None:
        try:
            self._runner.carry_out(taken, slot)
        finally:
            taken.claim.close()
        if not self._quiet:
            print(printable(redact(trial_line(self._journal.trials()[taken.number]))), flush=True)


def tune(arguments: Sequence[str]) -> None:
    """Tune, as a command line says.

    Raises:
        HswError: If the command line is wrong, or nothing came of it.
        Interrupted: If a signal stopped it.
    """
    refuse_secrets(arguments)
    command = read_command(arguments)
    with composing(command.overrides):
        base = composed(command.overrides)
        choices = base.hydra.runtime.choices
        space = read_space(command, str(choices.get("agent")))
        points = len(grid(space)) if command.settings.sampler == "grid" else None
        following = check_space(command.settings, command.overrides, space)
        folder = Path(command.settings.dir, command.settings.name or f"{choices.get('agent')}_{choices.get('env')}")
        plain = own(base)
        keep_identity(folder, _identity(command, space, plain))
        limit = min(command.settings.trials or points or _TRIALS, points or 10**9)
        if following:
            print(f"each rung begins anew, as these depend on its budget: {', '.join(following)}", flush=True)
        _study(_plan(command, space, plain, bool(following)), plain, folder, limit)


def _plan(command: Command, space: Sequence[Parameter], plain: DictConfig, anew: bool) -> Plan:
    kept = [one for one in command.overrides if one.partition("=")[0] not in ("seed", "num_train_steps")]
    seeds = range(int(plain.seed), int(plain.seed) + command.settings.seeds)
    return Plan(command.settings, tuple(kept), tuple(space), tuple(seeds), int(plain.num_train_steps), anew)


def _study(plan: Plan, plain: DictConfig, folder: Path, limit: int) -> None:
    settings, space = plan.settings, plan.space
    directions: list[Direction] = ["maximize"] if settings.second == "none" else ["maximize", "minimize"]
    journal = Journal(folder, {one.name: one.distribution() for one in space}, directions)
    results = Results(plan, journal, limit)
    with guarded(), _jobs(folder) as (jobs, stopped_by):
        _carry_out(Trials(plan, journal, jobs, limit, bool(plain.quiet)), jobs, settings.workers)
        chosen = best_trials(journal.trials()[:limit], directions, settings.confirm)
        if chosen and not jobs.stopped():
            again = Confirmation(plan, journal, jobs, chosen, settings.baseline)
            _carry_out(again, jobs, settings.workers)
            results.confirmed = again.rows
    if stopped_by:
        print(printable(redact(results.table())), flush=True)
        raise Interrupted(f"the tuning was stopped by signal {stopped_by[0]}; the same command goes on", stopped_by[0])
    results.write_csv()
    if not results.ended():
        print(printable(redact(results.table())), flush=True)
        error, code = results.first_error()
        raise SweepError(f"none of {limit} trials has a score, the first: {one_line(error)}", code)
    best = write_best(plan, results)
    write_report(plan, results, best)
    print(printable(redact("\n\n".join([results.table(), *results.endings(best)]))), flush=True)


def _identity(command: Command, space: Sequence[Parameter], plain: DictConfig) -> dict[str, object]:
    """What a study keeps for as long as it lives: what its runs have in common, what varies, and how it is judged."""
    found = {key: value for key, value in identity(plain).items() if key != "tag"}
    found |= {f"space {parameter.name}": parameter.as_text() for parameter in space}
    return {**found, **command.settings.identity(), "num_train_steps": int(plain.num_train_steps)}


def _carry_out(source: Source, jobs: Jobs, workers: int) -> None:
    """Have workers do all there is, until it is done or the tuner is stopped."""
    failed: list[BaseException] = []

    def work(slot: int) -> None:
        try:
            while not jobs.stopped() and not failed:
                one = source.take()
                if one is not None:
                    one(slot)
                elif source.done():
                    return
                else:
                    time.sleep(_POLL)
        except Stopped:
            return
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(slot,), daemon=True) for slot in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # a join without a limit would keep signals out
            thread.join(0.2)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _jobs(folder: Path) -> Iterator[tuple[Jobs, list[int]]]:
    """The processes for jobs; within the body, signals stop them, and are listed."""
    jobs, heard = Jobs(folder), list[int]()

    def handle(signum: int, frame: FrameType | None) -> None:
        deadline.heard(signum)
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum
        if heard and signum == signal.SIGINT:
            raise KeyboardInterrupt  # whoever asks twice has waited long enough
        heard.append(signum)
        jobs.stop(signum)

    asked = [signal.SIGINT, signal.SIGTERM]
    asked += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # nohup's
    previous = {}
    try:
        if threading.current_thread() is threading.main_thread():
            previous = {signum: signal.signal(signum, handle) for signum in asked}
        yield jobs, heard
    finally:
        jobs.close()
        for signum, handler in previous.items():
            signal.signal(signum, handler)
