"""What is refused before Hydra makes a folder: a run, or a sweep none of whose jobs could begin."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from hsw.cli.main import JobError
from hsw.config.choices import check_choices, chosen_preset, search_also, task_overrides
from hsw.config.origin import check_origin
from hsw.config.settings import root_key
from hsw.errors import ConfigError
from hsw.sweep.callback import jobs_of

# What a run has written by the time at which its parts are built.
_TRACES = ("train.log", "status.json", "run.lock", "tensorboard", "wandb")


class GateCallback(Callback):
    """Hydra's news of a run or a sweep that is composed, and has no folder yet."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            search_also(config.hydra.searchpath)
            _check_run(config)
        except Exception as error:
            raise JobError from error  # Hydra would warn, and go on

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **kwargs: Any) -> None:
        try:
            search_also(config.hydra.searchpath)
            _check_sweep(config, config_name)
        except Exception as error:
            raise JobError from error


def check_composed(config: DictConfig) -> None:
    """Check a config as Hydra composed it, its own node included.

    Raises:
        ConfigError: For the first thing that is wrong.
    """
    from hsw.config.resolved import allowed_by, check, learners_of

    check_choices(config.hydra.runtime.choices, task_overrides(config.hydra))
    own = config.copy()
    with open_dict(own):
        own.allow = allowed_by(config)
        if not isinstance(own._get_node("preset"), DictConfig):  # else its file is amiss, and the check tells
            own.preset = chosen_preset(config.hydra.runtime.choices)  # Hydra has not told its resolver yet
        del own["hydra"]
    check(own)
    learners_of(own, task_overrides(config.hydra))
    check_origin(own)


def _check_run(config: DictConfig) -> None:
    global _fresh
    study = config.hydra.runtime.choices.get("experiments")
    swept = set(OmegaConf.select(config, "hydra.sweeper.params") or {})
    given = {override.partition("=")[0] for override in task_overrides(config.hydra)}
    if study and swept - given:
        raise ConfigError(f"experiments={study} is a sweep; leave hydra.mode out")
    if config.resume is None:  # else the config is the folder's
        check_composed(config)
    _fresh = _first_missing(Path(config.hydra.run.dir).absolute()) if config.resume is None else None


def _check_sweep(config: DictConfig, config_name: str | None) -> None:
    """A sweep whose jobs are all refused is; else each job that is refused is a row of the table."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    params: Any = OmegaConf.select(config, "hydra.sweeper.params") or {}
    swept = [f"{key}={value}" for key, value in params.items()]
    if "allow" in map(root_key, params):
        raise ConfigError("a study cannot sweep allow: which packages are trusted is the command line's alone to say")
    jobs = jobs_of(parser.parse_overrides([*swept, *task_overrides(config.hydra)]))
    first: Exception | None = None
    along = [override for override in config.hydra.overrides.hydra if override.startswith("hydra.searchpath=")]
    for job in (jobs[0], jobs[-1], *jobs[1:-1]):
        try:
            check_composed(compose(config_name, overrides=[*along, *job], return_hydra_config=True))
            return
        except Exception as error:  # Hydra's have no common base
            if first and str(error) == str(first):
                break  # what is wrong with the first and the last is wrong with all
            first = first or error
    if first:
        raise first


_fresh: tuple[Path, ...] | None = None  # of the run that began in this process: the folders that it makes


def _first_missing(folder: Path) -> tuple[Path, ...] | None:
    """The folders that a run's folder adds, the innermost first; None if there is something in it already."""
    if folder.is_dir():
        return None if any(folder.iterdir()) else ()
    return (folder, *(parent for parent in folder.parents if not parent.exists()))


def forget(folder: Path) -> None:
    """Delete what a run left that was refused while its parts were built, if the folder was its own."""
    if _fresh is None:
        return
    for name in _TRACES:
        shutil.rmtree(folder / name, ignore_errors=True)  # if it is a folder
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    for made in _fresh:
        with contextlib.suppress(OSError):  # something else is in it
            made.rmdir()
