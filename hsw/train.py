"""Train: compose a config, check it, build what it names, run it.

python -m hsw.train [group=choice ...] [key=value ...]
python -m hsw.train resume=<run folder>
python -m hsw.train from=<run folder> [key=value ...]
python -m hsw.train experiments=<study> | --multirun key=value,value ...
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hsw import deadline
from hsw.cli.along import along, is_first
from hsw.cli.main import JobError, run_main
from hsw.config.arguments import allowed_by_flag, of_rank, prepare
from hsw.config.choices import preset_note, study_mode
from hsw.config.files import conf_folder, refuse_null_choices, refuse_secrets
from hsw.config.folders import with_folders
from hsw.config.hydra_versions import VERSION_BASE, trusting
from hsw.config.origin import ORIGIN, changes_since, take_origin, write_origin
from hsw.config.plugins import register_plugins, trusted_packages
from hsw.errors import ConfigError, HswError, Interrupted, ResourceError
from hsw.output import secure_logging
from hsw.ranks import of_environment
from hsw.run.status import DONE_BEFORE, JobOutcome, read_status, stored_identity, write_status
from hsw.run.trace import log_error
from hsw.sweep.callback import reporting
from hsw.sweep.gate import forget
from hsw.sweep.job import in_sweep, run_job, settled, stoppable
from hsw.sweep.mailbox import NUMBER

if TYPE_CHECKING:
    from hsw.run.folder import RunFolder
    from hsw.run.watched import LastWords


# torch, gymnasium and everything that needs them are imported when a run begins: --help, --cfg and shell completion
# answer at once.


@hydra.main(**VERSION_BASE, config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    logging.captureWarnings(True)
    secure_logging()
    hydra_config = HydraConfig.get()
    if of_environment()[0]:
        from hsw.config.settled import settled_config, trusted_by
        from hsw.done import is_done
        from hsw.learners import follow, quieten

        quieten()
        path, resumed = str(config.resume), config.resume is not None
        try:
            config, _ = settled_config(config)
            trusted = trusted_by(config, resumed)
            if resumed and is_done(config, Path(path), trusted or ()):
                return  # rank 0 says so
        except Exception as error:
            raise JobError from error
        follow(config, trusted)
    folder = Path(config.resume or hydra_config.runtime.output_dir)
    if in_sweep():
        named = any(override.startswith("threads=") for override in hydra_config.overrides.task)
        launcher = hydra_config.launcher._target_.lower()
        if "joblib" in launcher or "ray" in launcher:
            # joblib's own is unknown to a job's processes, and Ray has threads.
            multiprocessing.set_start_method("spawn", force=True)
        if "joblib" in launcher:
            config.threads = config.threads if named else 1  # there are as many jobs as cores
        number = int(os.environ.get(NUMBER) or hydra_config.job.num)  # a single run has none
        run_job(lambda: run_in_folder(config, folder, job=True), folder.name, number, config.fail_fast)
        return
    try:
        with stoppable():
            outcome = run_in_folder(config, folder)
    except (Exception, Interrupted) as error:
        raise JobError from error  # past Hydra, which would print a line of its own first
    if outcome.cause:
        raise JobError from outcome.cause


def run_in_folder(config: DictConfig, folder: Path, job: bool = False) -> JobOutcome:
    """Carry out the run that a config describes, and leave in status.json how it went.

    Args:
        config: Composed; with `resume` set, everything but what a resumed run may change comes from the folder.
        folder: The run's.
        job: It is one of a sweep, and may have been here before: done, it is skipped; else it goes on from its last
            checkpoint.

    Returns:
        How it went, also if it failed or was interrupted.

    Raises:
        HswError: If the run did not begin.
    """
    from hsw.config.resolved import load_config
    from hsw.config.settled import settled_config, trusted_by
    from hsw.done import done_with
    from hsw.env.trust import only_trusting
    from hsw.run.identity import refuse_used, run_id_of
    from hsw.run.watched import own_folder, watched

    resume = config.resume is not None
    if job and resume:
        raise ConfigError("a sweep resumes its own jobs; leave resume out")
    config, own = settled_config(config)
    trusted = trusted_by(config, resume)
    trust = contextlib.nullcontext() if trusted is None else only_trusting(trusted)
    same = (stored_identity(folder) or own) if resume else own
    status = {"status": "running", "num_train_steps": config.num_train_steps, "identity": same}
    if job and (before := _finished(folder, status)):  # before the folder is touched
        return before
    if resume and (done := done_with(config, folder, trusted or ())):
        return done
    run_folder = own_folder(folder)
    try:
        if not job and not resume:
            refuse_used(folder, config.allow)
        else:
            run_folder.run_id = run_id_of(folder) or run_folder.run_id
        status["run"] = run_folder.run_id
        if job:
            if before := _finished(folder, status):  # by whoever owned the folder a moment ago
                return before
            resume = _begin_again(folder)
        write_status(folder, status)
        if ORIGIN in os.environ and not resume:
            logging.getLogger("hsw").info(changes_since(load_config(Path(os.environ[ORIGIN])), config))
        try:
            with trust, watched(folder, status) as words:
                outcome = _train_to_end(config, run_folder, resume, words, trusted)
                settled()
        except Interrupted as error:  # beside training: while what it needs was imported, or after it
            outcome = JobOutcome("interrupted", error.exit_code, str(error), cause=error)
        with contextlib.suppress(*([ResourceError] if outcome.cause else [])):  # the error is what counts
            write_status(folder, status | outcome.as_status())
        cause = outcome.cause
        refused = isinstance(cause, HswError) and cause.exit_code == ConfigError.exit_code and not cause.details
        if refused and outcome.steps is None and not job:
            forget(folder)  # it never began, and train.log has no traceback that somebody needs
        return outcome
    finally:
        run_folder.close()


def _finished(folder: Path, status: dict[str, Any]) -> JobOutcome | None:
    """How a job went that was done before, to the same end or beyond.

    Raises:
        ConfigError: If the folder holds another run.
    """
    before = read_status(folder, status["identity"])
    if not before or before["status"] != "done" or before.get("num_train_steps", 0) < status["num_train_steps"]:
        return None
    figures = {name: before.get(name) for name in ("exit_code", "steps", "seconds")}
    return JobOutcome("done", score=before.get("return"), note=DONE_BEFORE, **figures)


def _begin_again(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from; if not, the job's earlier traces are deleted."""
    from hsw.run.checkpoint import list_checkpoints

    if list_checkpoints(folder / "checkpoints"):
        return True
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    for name in ("best", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return False


def _train_to_end(
    config: DictConfig, folder: RunFolder, resume: bool, words: LastWords, trusted: tuple[str, ...] | None
) -> JobOutcome:
    """Build and train in a folder that this process owns. Errors are in the outcome, not raised."""
    from hsw.build import outcome_of
    from hsw.cli.summary import facts_of, last_lines
    from hsw.learners import Company, joined
    from hsw.run.header import header, tell

    log = logging.getLogger("hsw")
    agent = None
    company = Company()
    place = {"folder": str(folder.path.absolute()), "resume": resume}
    try:
        with joined(config, company, place, trusted), open_run(config, folder, resume) as agent:
            words.agent = agent
            company.trains(agent)
            facts = facts_of(agent, agent.services.config, folder.path, _preset(config, resume))
            tell(header(facts), quiet=config.quiet or in_sweep())
            if resume:
                log.info("resumed at step %d", agent.step)
            agent.train()
    except BaseException as error:
        outcome = outcome_of(agent, error)
        log_error(error, str(outcome.error))
        return outcome
    outcome = outcome_of(agent, None)
    trusts = agent.services.trusts
    lines = last_lines(agent.last_scores, agent.step, outcome.seconds or 0.0, folder.path, sys.argv[0], trusts)
    if config.quiet or in_sweep():
        log.info("%s: %s", " ".join(lines.splitlines()[0].split()), folder.path)
    else:
        tell(lines)
    return outcome


def _preset(config: DictConfig, resume: bool) -> str:
    """The preset whose values the run took, if there is one; of a resumed run its config tells."""
    if resume or not HydraConfig.initialized():
        return str(config.preset or "none, general values")
    return preset_note(HydraConfig.get().runtime.choices, config)


@contextlib.contextmanager
def open_run(config: DictConfig, folder: RunFolder, resume: bool) -> Iterator[Any]:
    """Build the run that a checked config describes, in its folder, and close its environment afterwards.

    Args:
        config: Composed.
        folder: The run's.
        resume: Restore its newest checkpoint.

    Yields:
        The agent, ready to train.
    """
    from hsw.build import make_run

    agent = make_run(config, folder, resume)
    try:
        if HydraConfig.initialized() and not resume:
            write_origin(folder, HydraConfig.get())
        yield agent
    except BaseException as error:
        if isinstance(error, Interrupted):
            deadline.hurry(error.exit_code, 2.0)
        agent.env.abandon()
        raise
    agent.env.close()


def main() -> None:
    """The command `hsw-train`, and `python -m hsw.train`.

    Raises:
        ConfigError: If the configuration cannot work; nothing was started.
        EnvError: If an environment broke its contract, raised or hung.
        NonFiniteError: If a loss, a gradient or a weight was not finite.
        WorkersLostError: If more actors were lost than agent.max_restarts makes good.
        ResourceError: If disk, memory or threads gave out.
        CorruptError: If a file of a run that is resumed or read is damaged, too new, or not to be trusted.
        Interrupted: If a signal stopped the run, whose state is saved.
        SweepError: If jobs of a sweep failed: with the first one's code.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors reach run_main, which prints a sentence
    sys.argv[1:] = allowed_by_flag(sys.argv[1:])
    refuse_secrets(sys.argv[1:])
    sys.argv[1:] = prepare(sys.argv[1:])
    sys.argv[1:] = take_origin(sys.argv[1:])
    refuse_null_choices(sys.argv[1:])
    register_plugins()
    sys.argv[1:] = with_folders(study_mode(sys.argv[1:]))
    sys.argv[1:] = of_rank(sys.argv[1:])
    with reporting(), trusting(trusted_packages()):
        _hydra_main()


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main if is_first() else partial(along, main))


if __name__ == "__main__":
    cli()
