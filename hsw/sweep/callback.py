"""A sweep around its jobs: which there are, how they are called, and the table at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hsw import deadline
from hsw.cli.main import JobError
from hsw.config.resolvers import job_name
from hsw.config.settings import CHANGEABLE, root_key
from hsw.directory import LinkError
from hsw.errors import ConfigError, Interrupted, ResourceError, SweepError
from hsw.output import printable
from hsw.run.folder import write_whole
from hsw.run.paste import hydra_quoted
from hsw.run.status import JobOutcome, stored_status
from hsw.run.watched import guarded
from hsw.sweep.mailbox import DIED, VARIABLE, Mailbox
from hsw.sweep.table import as_csv, as_text


class Sweep:
    """The sweep that this process runs.

    Args:
        folder: Of the study.
        jobs: Names of the jobs' folders, in the order of their numbers.
        local: Jobs end with this process, however it ends; a cluster's go on.
    """

    def __init__(self, folder: Path, jobs: list[str], local: bool = True) -> None:
        self.folder, self.jobs = folder, jobs
        self._guarded = contextlib.ExitStack()
        if local:
            self._guarded.enter_context(guarded())
        self.mailbox = Mailbox.own = Mailbox.create(folder)
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in _asked()}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Between jobs, or while they run in other processes: no further one starts, and those that run save."""
        deadline.heard(signum)
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum
        if self.mailbox.stopped() and signum == signal.SIGINT:
            raise KeyboardInterrupt  # whoever asks twice has waited long enough
        self.mailbox.stop(signum)
        for pid in self.mailbox.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def close(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self.mailbox.stopped():
            _end_idle_workers()
        self.mailbox.delete()
        Mailbox.own = None
        self._guarded.close()

    def outcomes(self) -> list[JobOutcome]:
        """How each job went, each with its job's name."""
        told = [self.mailbox.outcome(number) for number in range(len(self.jobs))]
        named = {outcome.job for outcome in told}
        silent = iter([job for job in self.jobs if job not in named])  # a shuffled sweep runs them in another order
        for outcome in told:
            outcome.job = outcome.job or next(silent, None)
            if outcome.job and outcome.note == DIED:  # or was ended, and then its status says why
                last = stored_status(self.folder / outcome.job)
                if last.get("status") in ("interrupted", "failed"):
                    outcome.status, outcome.exit_code = last["status"], last.get("exit_code")
                    outcome.note, outcome.steps = last.get("error"), last.get("steps")
        return told

    def conclude(self, error: BaseException | None) -> None:
        """Show and write the table.

        Raises:
            Interrupted: If a signal stopped the sweep, or jobs of it.
            SweepError: If a job failed.
        """
        outcomes, signum = self.outcomes(), self.mailbox.stopped()
        if error is not None and not signum and all(outcome.status == "not started" for outcome in outcomes):
            return  # the command line is wrong, and the error says how
        print(printable(as_text(outcomes)), flush=True)
        path = self.folder / "jobs.csv"
        with contextlib.suppress(ResourceError):
            write_whole(path, as_csv(outcomes).encode())
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        again = "the same command goes on where it stopped"
        if signum:
            raise Interrupted(f"the sweep was stopped by signal {signum}; {again}", signum)
        if failed:
            raise SweepError(
                f"{len(failed)} of {len(outcomes)} jobs failed, the first: {failed[0].job}: {failed[0].note} "
                f"(all in {path})",
                failed[0].exit_code or 1,
            )
        if error is None and any(outcome.status in ("interrupted", "running") for outcome in outcomes):
            raise Interrupted(f"jobs did not end; {again}", signal.SIGTERM)


def _asked() -> list[signal.Signals]:
    """The signals that stop a sweep."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # nohup's
    return [signal.SIGINT, signal.SIGTERM, *hangup]


_current: Sweep | None = None


class SweepCallback(Callback):
    """Hydra's news of a sweep that begins."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _begin(config)
        except Exception as error:
            raise JobError from error  # Hydra would warn, and go on without


def _begin(config: DictConfig) -> None:
    global _current
    overrides = OmegaConf.to_container(config.hydra.overrides.task)
    assert isinstance(overrides, list)
    params: Any = OmegaConf.select(config, "hydra.sweeper.params") or {}
    swept = [f"{key}={value}" for key, value in params.items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    jobs = jobs_of(parser.parse_overrides([*swept, *overrides]))
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job:
            values.setdefault(override.partition("=")[0], set()).add(override)
    if len(values.get("experiments", ())) > 1:
        raise ConfigError("a sweep is of one study, because a study says itself what to sweep; run one after another")
    if values.get("resume", set()) - {"resume=null"}:
        raise ConfigError("a sweep resumes its own jobs; leave resume out")
    _refuse_absent(config.hydra.launcher._target_)
    if "Slurm" in config.hydra.launcher._target_ and not shutil.which("srun"):
        raise ConfigError(
            "there is no SLURM here (no srun); hydra/launcher=submitit_local does the same on this machine"
        )
    unnamed = _unnamed(values, params)
    folder, names = Path(config.hydra.sweep.dir).absolute(), [job_name(job, unnamed) for job in jobs]
    _refuse_links(folder)
    unusable = [name for name in dict.fromkeys(names) if not _usable(folder / name)]
    if unusable:
        raise ResourceError(f"cannot write into {', '.join(unusable)} in {folder}; move it away")
    if "Slurm" in config.hydra.launcher._target_:
        _let_slurm_queue_again(config.hydra)
    joblib = "joblib" in config.hydra.launcher._target_.lower()
    if joblib:
        _check_files(config.hydra.launcher.get("n_jobs") or -1)
    _current = Sweep(folder, names, local="Slurm" not in config.hydra.launcher._target_)
    if joblib:
        _start_tracker()
    quoted = ",".join(hydra_quoted(key) for key in unnamed)
    with read_write(config.hydra), open_dict(config.hydra):  # every job is composed with these, in whatever process
        config.hydra.overrides.hydra += [
            f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]",
            f"hydra.sweep.dir={hydra_quoted(str(folder))}",  # whatever of it a job varies
            f"+hydra.job.env_set.{VARIABLE}={hydra_quoted(str(_current.mailbox.folder))}",
        ]


def _check_files(n_jobs: int) -> None:
    """Refuse to start workers that the limit of open files would leave half-started, and the sweep waiting for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 80 + 8 * workers
    if limit != resource.RLIM_INFINITY and needed > limit:
        raise ConfigError(
            f"hydra/launcher=joblib with {workers} workers needs about {needed} open files and {limit} are allowed; "
            "raise `ulimit -n`, lower hydra.launcher.n_jobs, or leave the launcher out"
        )


def _start_tracker() -> None:
    """joblib's tracker of semaphores, deaf to the end of the terminal, as it is to SIGINT and SIGTERM."""
    from joblib.externals.loky.backend import resource_tracker

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_idle_workers() -> None:
    """joblib's have nothing left to do, and take the longer to end the busier the machine is."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    workers = getattr(getattr(loky, "_executor", None), "_processes", None) or {}
    for pid in list(workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _refuse_absent(launcher: str) -> None:
    """Refuse a launcher for which something is not installed.

    Raises:
        ConfigError: Naming the extra.
    """
    needed, extra = ("ray", "ray") if launcher.endswith(".RayLauncher") else (launcher.rpartition(".")[0], "sweep")
    try:
        absent = importlib.util.find_spec(needed) is None
    except ModuleNotFoundError:
        absent = True
    if absent:
        raise ConfigError(f"{launcher.rpartition('.')[2]} needs what is not installed: pip install 'hsw[{extra}]'")


def _let_slurm_queue_again(hydra: DictConfig) -> None:
    """Jobs resume, so what submitit has switched off for those that do not is on, unless the command line says more."""
    given = {override.lstrip("+").partition("=")[0] for override in hydra.overrides.hydra}
    with read_write(hydra), open_dict(hydra):
        for key, value in (("max_num_timeout", 100), ("additional_parameters.requeue", True)):
            if not given & {f"hydra.launcher.{key}", f"hydra.launcher.{key.partition('.')[0]}"}:
                OmegaConf.update(hydra.launcher, key, value)


def jobs_of(overrides: Iterable[Override]) -> list[list[str]]:
    """The overrides of every job, in the order in which Hydra's basic sweeper numbers them.

    Raises:
        ConfigError: If a key is swept over what cannot be listed.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(
                f"{key}: a sweep takes values one by one, not an interval; list them: {key}=1,2,3, or "
                "search with python -m hsw.tune"
            )
    return [list(job) for job in itertools.product(*values.values())]


def _unnamed(values: dict[str, set[str]], params: Iterable[str]) -> list[str]:
    """The keys that job folders are not named by.

    The seed and what a study sweeps always name them, so that a job has the same folder when there are more, or fewer,
    beside it. Of the others, what is the same in all jobs does not, and least of all what a rerun may change.

    Args:
        values: The overrides that the jobs have, by key.
        params: Keys that the study sweeps.
    """
    same = [key for key, seen in values.items() if len(seen) == 1]
    changeable = [key for key in same if root_key(key) in ("experiments", "budget", *CHANGEABLE)]
    unnamed = [key for key in same if key in changeable or key not in ("seed", *params)]
    return unnamed if len(unnamed) < len(values) else changeable


def _usable(folder: Path) -> bool:
    """Whether Hydra can write train.log into a folder, if it is there; it ends a sweep where it cannot."""
    if not os.path.lexists(folder):
        return True
    path = folder / "train.log"
    log = not os.path.lexists(path) or (path.is_file() and os.access(path, os.W_OK) and not path.is_symlink())
    return folder.is_dir() and not folder.is_symlink() and os.access(folder, os.W_OK | os.X_OK) and log


def _refuse_links(folder: Path) -> None:
    """Refuse a study in which what Hydra and its launchers write, by its path, is a link.

    Raises:
        CorruptError: Naming it.
    """
    for name in ("multirun.yaml", ".submitit"):
        if (folder / name).is_symlink():
            raise LinkError(f"{folder / name} is a link, and what is in a study's folder must be its own; delete it")


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Around Hydra: the table of a sweep that ran within, whatever became of it, and its exit code."""
    global _current
    _current = None
    error: BaseException | None = None
    try:
        try:
            yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            if _current is not None:
                _current.conclude(error)
    finally:
        if _current is not None:
            _current.close()
