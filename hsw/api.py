"""hsw from Python: compose a config, make an agent of it, load what a run has learnt. `import hsw` has all three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict

from hsw.cli.main import describe
from hsw.config.arguments import prepare_overrides
from hsw.config.choices import check_choices, chosen_preset, places_named, search_also
from hsw.config.files import conf_folder, refuse_null_choices, refuse_secrets
from hsw.config.hydra_versions import VERSION_BASE
from hsw.config.plugins import register_plugins
from hsw.errors import ConfigError

if TYPE_CHECKING:
    from hsw.agent import Agent
    from hsw.trained import TrainedPolicy


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> DictConfig:
    """The config that a command line stands for, checked as the command checks it.

    Args:
        overrides: As on the command line: ["agent=ppo", "env=cartpole", "algorithm.lr=1e-3"].
        config_dir: A folder of further choices, as --config-dir names one.

    Raises:
        ConfigError: In the sentence that the command line has for it.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from hsw.config.resolved import allowed_by, check

    arguments = [str(override) for override in overrides]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"there is no folder {config_dir} to take choices from")
        place = str(Path(config_dir).absolute()).replace("\\", "\\\\").replace("'", "\\'")
        arguments.append(f"hydra.searchpath=['file://{place}']")
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{argument} is a flag; hsw.compose takes overrides such as agent=ppo")
        if argument.startswith("resume=") and argument != "resume=null":
            raise ConfigError(f"a run is resumed by the command: python -m hsw.train {argument}")
    refuse_secrets(arguments)
    arguments = prepare_overrides(arguments)
    refuse_null_choices(arguments)
    register_plugins()
    search_also(places_named(arguments))
    try:
        with initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
            config = hydra_compose("config", overrides=arguments, return_hydra_config=True)
            choices = config.hydra.runtime.choices
            check_choices(choices, arguments)
        with open_dict(config):
            config.allow = allowed_by(config)  # and none that a YAML trusts
            del config["hydra"]
            config.preset = chosen_preset(choices)
        check(config)
    except Exception as error:
        message, code = describe(error, arguments)
        if code != ConfigError.exit_code or isinstance(error, ConfigError):
            raise
        raise ConfigError(message) from error
    return config


def make(config: DictConfig | Mapping[str, Any], folder: str | Path | None = None) -> Agent:
    """Build what a config names, ready to train: agent.train() takes the config's budget.

    Args:
        config: Of compose, or a plain mapping with the same keys; it is not changed.
        folder: Where the run is kept, for hsw.load, hsw.eval, hsw.report and resume=; None keeps nothing.

    Raises:
        ConfigError: If the config cannot work, or the folder holds a run.
        EnvError: If the environment cannot be built.
    """
    import torch

    from hsw.build import build_agent, make_run
    from hsw.config.plain import settle
    from hsw.config.resolved import check, identity
    from hsw.ranks import current
    from hsw.run.folder import RunFolder
    from hsw.run.services import Run
    from hsw.run.status import JobOutcome, write_status

    own = config.copy() if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    check(own)
    same = identity(own)
    own = settle(own)  # what is checked is what is built
    if own.resume is not None:
        raise ConfigError(f"a run is resumed by the command: python -m hsw.train resume={own.resume}")
    if own.learners != current().size:
        raise ConfigError(
            f"learners={own.learners} is started by the command: python -m hsw.train learners={own.learners}; "
            "from Python a run has one"
        )
    if folder is None:
        torch.set_num_threads(own.threads)
        return build_agent(own, Run(quiet=own.quiet))
    path = Path(folder).absolute()
    if (path / "config.yaml").exists() or (path / "checkpoints").exists():
        raise ConfigError(f"{path} holds a run; go on with it by python -m hsw.train resume={path}, or take another")
    status = {"num_train_steps": own.num_train_steps, "identity": same}
    run_folder = RunFolder(path)
    try:
        write_status(path, {"status": "running", **status})
        return make_run(own, run_folder, recorded=status)
    except BaseException as error:
        outcome = JobOutcome("failed" if isinstance(error, Exception) else "interrupted")
        outcome.error, outcome.exit_code = describe(error)
        write_status(path, {**status, **outcome.as_status()})
        run_folder.close()
        raise


def load(
    folder: str | Path,
    checkpoint: Literal["last", "best"] | int = "last",
    allow: Sequence[str] = (),
    device: str = "cpu",
) -> TrainedPolicy:
    """What a run has learnt, as something that acts. See TrainedPolicy.

    Args:
        folder: The run's; whichever way it was trained.
        checkpoint: "last", "best" of the run's own evaluations, or the step of one that was kept.
        allow: Packages that the run's config may name beside hsw's own and installed plugins.
        device: Where the networks compute.

    Raises:
        ConfigError: If there is no run, or no such checkpoint.
        CorruptError: If the run cannot be read, or names what it may not.
    """
    from hsw.trained import load_trained

    return load_trained(Path(folder), checkpoint, allow, device)
