"""What reads a run folder: resume, evaluate, report, and start from; each as its command does."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from hsw import eval as evaluation
from hsw import report, train
from hsw.cli.main import JobError, run_main
from hsw.config.files import conf_folder
from hsw.config.hydra_versions import VERSION_BASE
from hsw.sweep.job import stoppable
from tests.faults.campaign.server import Process, fork
from tests.faults.campaign.store import BUDGET

RESUME = ("allow=[tests]", "quiet=true", f"num_train_steps={BUDGET + 60}")


@functools.cache
def _composed() -> DictConfig:
    """The config of a resuming command, with Hydra's own."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
        return hydra.compose("config", overrides=["resume=run", *RESUME], return_hydra_config=True)


def resume_directly(run: Path) -> None:
    """Resume a run as the command does, but for the composition of its config, which is done once for all cases."""
    HydraConfig.instance().set_config(_composed())
    config = _composed().copy()
    with open_dict(config):
        del config["hydra"]
    config.resume = str(run)
    with stoppable():
        outcome = train.run_in_folder(config, run)
    if outcome.cause:
        raise JobError from outcome.cause


def read_by(reader: str, run: Path, place: Path, before: Callable[[], Any] = lambda: None) -> Process:
    """Start a reader of a run folder.

    Args:
        reader: One of READERS.
        run: The folder.
        place: For what it says.
        before: Called in its process first.
    """
    if reader == "resume":
        _composed()
        return fork(place, main=lambda: run_main(functools.partial(resume_directly, run)), before=before)
    if reader in ("command", "from"):
        word = "resume" if reader == "command" else "from"
        more = (f"hydra.run.dir={place / 'other'}",) if reader == "from" else ()
        return fork(place, f"{word}={run}", *RESUME, *more, before=before)
    if reader == "report":
        return fork(place, str(run), "--no-curves", "--reps", "20", main=report.cli, before=before)
    options = ("--episodes", "1", "--allow", "tests", *(("--checkpoint", "best") if reader == "best" else ()))
    return fork(place, str(run), *options, main=evaluation.cli, before=before)


READERS = ("resume", "resume", "resume", "resume", "command", "eval", "best", "report", "from")


def forget_imports(place: Path) -> Callable[[], None]:
    """Let a folder be imported from, as the folder in which somebody works."""
    return lambda: sys.path.insert(0, str(place))
