"""The config that a command runs: what Hydra composed, checked and settled, or the folder's that is resumed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hsw.config.choices import check_choices, task_overrides
from hsw.config.origin import ORIGIN, check_origin
from hsw.config.plain import settle
from hsw.config.plugins import trusted_packages
from hsw.config.resolved import allowed_by, check, identity, learners_of, resumed_config
from hsw.config.settings import CHANGEABLE
from hsw.errors import ConfigError
from hsw.ranks import of_environment


def settled_config(config: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """The config that is run, checked, and its identity; of a resumed run the folder's.

    Args:
        config: Composed.

    Raises:
        ConfigError: If it cannot work.
        CorruptError: If a folder's config cannot be read.
    """
    overrides = task_overrides(HydraConfig.get()) if HydraConfig.initialized() else []
    if config.resume is not None:
        config = resumed_config(config, Path(config.resume))  # checked there
        if (size := of_environment()[1]) not in (1, config.learners):
            raise ConfigError(
                f"the run has {config.learners} learner{'s' * (config.learners > 1)}, each with a part of its "
                f"checkpoints, and torchrun started {size}; a resumed run keeps its learners and may change "
                f"{', '.join(CHANGEABLE[:-1])}"
            )
        return config, identity(config)
    if HydraConfig.initialized():
        check_choices(HydraConfig.get().runtime.choices, overrides)
    config.allow = allowed_by(config)
    check(config)
    config.learners = learners_of(config, overrides)
    own = identity(config)  # while what follows from a value that a resumed run may change still does
    config = settle(config)  # what is checked is what is built
    check(config)
    check_origin(config)
    return config, own


def trusted_by(config: DictConfig, resume: bool) -> tuple[str, ...] | None:
    """The packages that alone may be named; None where the config is the command line's own, which a sweep's job's is.

    What a folder's config names is not trusted.
    """
    return (*config.allow, *trusted_packages()) if resume or ORIGIN in os.environ else None
