"""Train: compose a config, check it, build what it names, run it.

python -m hsw.train [group=choice ...] [key=value ...]
python -m hsw.train resume=<run folder>
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hsw.cli.main import JobError, describe, run_main
from hsw.config.files import conf_folder, refuse_choices, refuse_secrets
from hsw.errors import ConfigError, ResourceError
from hsw.run.status import read_status, stored_identity, write_status
from hsw.sweep.callback import reporting
from hsw.sweep.job import in_sweep, run_job

if TYPE_CHECKING:
    from hsw.run.folder import RunFolder

# torch, gymnasium and everything that needs them are imported when a run begins: --help, --cfg and shell completion
# answer at once.


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    logging.captureWarnings(True)
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if in_sweep():
        named = any(override.startswith("threads=") for override in hydra_config.overrides.task)
        if "joblib" in hydra_config.launcher._target_:
            multiprocessing.set_start_method("spawn", force=True)  # joblib's own is unknown to a job's processes
            config.threads = config.threads if named else 1  # there are as many jobs as cores
        run_job(lambda row: train(config, folder, row), folder.name, hydra_config.job.num, config.fail_fast)
        return
    try:
        study = hydra_config.runtime.choices.get("experiments")
        if study and OmegaConf.select(cast(Any, hydra_config), "sweeper.params"):
            raise ConfigError(f"experiments={study} is a sweep; leave hydra.mode out")
        train(config, folder)
    except Exception as error:
        raise JobError from error  # past Hydra, which would print a line of its own first


def train(config: DictConfig, folder: Path, row: dict[str, Any] | None = None) -> None:
    """Train the run that a config describes, and leave in status.json how it went.

    Args:
        config: Composed; with `resume` set, everything but what a resumed run may change comes from the folder.
        folder: The run's.
        row: Of a sweep's job, which takes how it went. A job may have been here before: done, it is skipped; else it
            goes on from its last checkpoint.
    """
    from hsw.config.resolved import check, identity, resumed_config
    from hsw.run.folder import RunFolder

    resume, job = config.resume is not None, row is not None
    row = {} if row is None else row
    if job and resume:
        raise ConfigError("a sweep resumes its own jobs; leave resume out")
    if resume:
        config = resumed_config(config, Path(config.resume))  # checked there
    else:
        check(config)
    same = (stored_identity(folder) if resume else None) or identity(config)
    status = {"status": "running", "num_train_steps": config.num_train_steps, "identity": same}
    if job and _finished(folder, status, row):  # before the folder is touched
        return
    run_folder = RunFolder(folder)
    try:
        if job:
            if _finished(folder, status, row):  # by whoever owned the folder a moment ago
                return
            resume = _begin_again(folder)
        write_status(folder, status)
        try:
            _train(config, run_folder, row, resume)
        finally:
            with contextlib.suppress(*([ResourceError] if row["status"] != "done" else [])):  # the error is what counts
                write_status(folder, status | row)
    finally:
        run_folder.close()


def _finished(folder: Path, status: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a job was done before, to the same end or beyond.

    Raises:
        ConfigError: If the folder holds another run.
    """
    before = read_status(folder, status["identity"])
    if not before or before["status"] != "done" or before.get("num_train_steps", 0) < status["num_train_steps"]:
        return False
    row |= {key: before.get(key) for key in ("status", "exit_code", "return", "steps", "seconds")}
    row["note"] = "done before"
    return True


def _begin_again(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from; if not, the job's earlier traces are deleted."""
    from hsw.run.checkpoint import list_checkpoints

    if list_checkpoints(folder / "checkpoints"):
        return True
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    for name in ("best", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return False


def _train(config: DictConfig, folder: RunFolder, row: dict[str, Any], resume: bool) -> None:
    log = logging.getLogger("hsw")
    try:
        with open_run(config, folder, resume) as agent:
            if resume:
                log.info("resumed at step %d", agent.step)
            try:
                scores = agent.train(agent.num_train_steps)
            finally:
                row |= {"steps": agent.step, "seconds": round(agent.services.logger.elapsed, 3)}
                row["return"] = agent.last_score
    except BaseException as error:
        row["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        row["error"], row["exit_code"] = describe(error)
        raise
    row |= {"status": "done", "exit_code": 0}
    if scores is not None:
        log.info("return %.1f ± %.1f over %d episodes", scores["mean"], scores["std"], len(scores["returns"]))
    log.info("done: %s", folder.path)


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
    import torch

    from hsw.build import build_agent
    from hsw.run.services import Run

    torch.set_num_threads(config.threads)
    logger = hydra.utils.instantiate(config.logger)
    run = Run(folder, logger, checkpoint_interval=config.checkpoint_interval, quiet=config.quiet)
    agent = build_agent(config, run, run.load() if resume else None)
    try:
        saved: Any = OmegaConf.to_container(config, resolve=True)
        folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(saved)))
        folder.write_versions()
        run.config = saved
        yield agent
    finally:
        agent.env.close()


def main() -> None:
    """The command `hsw-train`, and `python -m hsw.train`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors reach run_main, which prints a sentence
    refuse_secrets(sys.argv[1:])
    refuse_choices(sys.argv[1:])
    for argument in sys.argv[1:]:
        if argument.startswith("resume=") and argument != "resume=null":
            # The run goes on where it was, also for Hydra's own log file.
            folder = argument.split("=", 1)[1]
            if not (Path(folder) / "config.yaml").is_file():
                raise ConfigError(f"there is no run in {folder}: it has no config.yaml")
            sys.argv.append(f"hydra.run.dir={folder}")
    with reporting():
        _hydra_main()


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
