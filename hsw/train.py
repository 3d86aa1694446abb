"""Train: compose a config, check it, build what it names, run it.

python -m hsw.train [group=choice ...] [key=value ...]
python -m hsw.train resume=<run folder>
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hsw.errors import ConfigError, CorruptError
from hsw.faces import JobError, conf_folder, refuse_choices, refuse_secrets, run_main

# torch, gymnasium and everything that needs them are imported when a run begins: --help, --cfg and shell completion
# answer at once.


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    logging.captureWarnings(True)
    try:
        _train(config, Path(HydraConfig.get().runtime.output_dir))
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # Hydra notes which job failed and goes on with the others
        raise JobError from error  # past Hydra, which would print a line of its own first


def _train(config: DictConfig, folder: Path) -> None:
    with open_run(config, folder) as agent:
        scores = agent.train(agent.num_train_steps)
    log = logging.getLogger("hsw")
    if scores is not None:
        log.info("return %.1f ± %.1f over %d episodes", scores["mean"], scores["std"], len(scores["returns"]))
    log.info("done: %s", folder)


@contextlib.contextmanager
def open_run(config: DictConfig, folder: Path) -> Iterator[Any]:
    """Build the run that a config describes, in its folder, and close its environment afterwards.

    Args:
        config: Composed; with `resume` set, everything but what a resumed run may change comes from the folder.
        folder: The run's.

    Yields:
        The agent, restored if it resumes, ready to train.
    """
    import torch

    from hsw.build import build_agent, check
    from hsw.run.folder import RunFolder
    from hsw.run.run import Run

    resume = config.resume is not None
    if resume:
        config = resumed_config(config, Path(config.resume))  # checked there
    else:
        check(config)
    torch.set_num_threads(config.threads)
    run_folder = RunFolder(folder)
    try:
        logger = hydra.utils.instantiate(config.logger)
        run = Run(run_folder, logger, checkpoint_interval=config.checkpoint_interval, quiet=config.quiet)
        agent = build_agent(config, run, run.load() if resume else None)
        try:
            saved: Any = OmegaConf.to_container(config, resolve=True)
            run_folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(saved)))
            run_folder.write_versions()
            run.config = saved
            yield agent
        finally:
            agent.env.close()
    finally:
        run_folder.close()


def resumed_config(config: DictConfig, folder: Path) -> DictConfig:
    """The folder's config, with what the command line may change of it.

    Raises:
        ConfigError: If there is no run, or the command line changes what makes the run what it is.
        CorruptError: If the folder's config cannot be read or names what it may not.
    """
    from hsw.build import check
    from hsw.run.settings import CHANGEABLE
    from hsw.run.targets import check_env_modules

    saved = load_config(folder)
    changed = {override.lstrip("+~").split("=")[0] for override in HydraConfig.get().overrides.task}
    groups = {key.split(".")[0].split("@")[0] for key in changed}
    refused = sorted(key for key in changed if key.split(".")[0].split("@")[0] not in CHANGEABLE)
    if refused:
        raise ConfigError(
            f"a resumed run keeps its {', '.join(refused)}; it may change {', '.join(CHANGEABLE[:-1])}; "
            "start a new run for anything else"
        )
    check(config)
    plain: Any = OmegaConf.to_container(saved, resolve=True)
    try:
        check_env_modules(plain, config.allow)
        for key in groups:
            saved[key] = config[key]
        saved.allow = config.allow
        check(saved)
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    return saved


def load_config(folder: Path) -> DictConfig:
    """Read the config that a run saved.

    Raises:
        ConfigError: If there is no run in the folder.
        CorruptError: If its config cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"there is no run in {folder}: it has no config.yaml")
    try:
        loaded = OmegaConf.load(path)
        assert isinstance(loaded, DictConfig)
        return loaded
    except Exception as error:  # YAML's, OmegaConf's and Unicode's errors have no common base
        raise CorruptError(f"{path} cannot be read: {type(error).__name__}") from error


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
    _hydra_main()


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
