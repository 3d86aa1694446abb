"""One sentence for what Hydra and OmegaConf have to say about a command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from hsw.config.files import conf_folder


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong with the command line, with the nearest right name."""
    text = str(error)
    cause = str(error.__cause__ or "")
    options = getattr(error, "options", None)
    missing = re.search(r"(?:Could not find|Could not load|In '.*?': Could not find) '?([\w./-]+)'?", text)
    if missing:
        group, _, choice = missing.group(1).rpartition("/")
        near = difflib.get_close_matches(choice, options or (), 1)
        meant = f"; did you mean {group}={near[0]}?" if near else ""
        return f"there is no {group}={choice}{meant}" + (f" (choices: {', '.join(options)})" if options else "")
    if hasattr(error, "override"):
        return f"cannot read the argument {error.override!r}; quote values with special characters: \"key='value'\""
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text + cause
    )
    if unknown:
        key = unknown.group(1).split("@")[0]
        guess = _nearest_key(key, arguments)
        if key.rpartition(".")[0].endswith("kwargs"):
            guess = f"+{key}=<value>"
        return f"there is no {key}" + (f"; did you mean {guess}?" if guess else "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _nearest_key(key: str, arguments: Sequence[str]) -> str | None:
    """Compose what can be composed of the command line and look for the key in it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from hsw.config.check import nearest
    from hsw.config.hydra_versions import VERSION_BASE

    choices = [a for a in arguments if re.fullmatch(r"(env|network|storage|algorithm|agent|logger)=\w+", a)]
    try:
        with initialize_config_dir(**VERSION_BASE, config_dir=str(conf_folder())):
            config = compose("config", overrides=choices)
    except Exception:  # the command line has other faults too; without a suggestion, then
        return None
    keys: list[str] = []

    def collect(node: Any, path: str) -> None:
        for name in node:
            inner = f"{path}.{name}" if path else str(name)
            if not str(name).startswith("_"):
                keys.append(inner)
                if OmegaConf.is_dict(node._get_node(name)):
                    collect(node._get_node(name), inner)

    collect(config, "")
    return nearest(key, keys)
