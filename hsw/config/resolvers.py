"""Resolvers that the configs use: values that depend on others, names of studies and of their jobs' folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from hsw.config.choices import chosen_preset
from hsw.config.hydra_versions import register_resolver

_MAX_LENGTH = 100  # in bytes; file systems take 255, and a path has several parts


def safe_name(text: str) -> str:
    """A text as the name of one folder: plain characters that Hydra's command line takes unquoted.

    A name that had to change ends in a hash of the text, so that different texts have different names.
    """
    name = re.sub(r"[^A-Za-z0-9.+_-]", "_", text)
    if name != text or not name or name.startswith((".", "-")) or len(name) > _MAX_LENGTH:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
        name = f"{name.lstrip('.-')[: _MAX_LENGTH - 11]}-{digest}".lstrip("-")
    return name


def job_name(overrides: Iterable[str], same: Iterable[str] = ()) -> str:
    """A job's folder, from its overrides: agent-daac+seed-1.

    Args:
        overrides: key=value, all of the job's.
        same: Keys to leave out.
    """
    pairs = sorted(override.partition("=") for override in overrides)  # however they were typed
    named = [(key, sign, value) for key, sign, value in pairs if key not in set(same)]
    return safe_name(
        "+".join(f"{key.lstrip('+')}-{value}" if sign else key for key, sign, value in named) or "defaults"
    )


def study_name(choice: str | None, tag: str) -> str:
    """A sweep's folder: its study's name, else its tag."""
    return safe_name(choice or (tag if tag != "default" else "sweep"))


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _study(tag: str) -> str:
    if not _in_sweep():
        return tag
    return study_name(HydraConfig.get().runtime.choices.get("experiments"), tag)


def _job() -> str | None:
    """None outside sweeps: wandb invents a name."""
    hydra: Any = HydraConfig.get() if _in_sweep() else None
    return job_name(hydra.overrides.task, hydra.job.config.override_dirname.exclude_keys) if hydra else None


def _choices() -> list[str]:
    if not HydraConfig.initialized():
        return []
    choices = HydraConfig.get().runtime.choices
    return [choices[group] for group in ("agent", "env", "experiments") if isinstance(choices.get(group), str)]


def choose(key: Any, values: Mapping[str, Any], otherwise: Any) -> Any:
    """The value that belongs to a key: ${choose:${env.game},{bigfish:32,plunder:8},1}."""
    return values.get(str(key), otherwise)


register_resolver("choose", choose)
register_resolver("study_name", study_name)
register_resolver("job_name", job_name)
register_resolver("this_study", _study)
register_resolver("this_job", _job)
register_resolver("chosen", _choices)
register_resolver("chosen_preset", chosen_preset)
