"""One sentence for what Hydra and OmegaConf have to say about a command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from hsw.config.choices import compose_choices, options, places_named, search_also
from hsw.config.words import meant

_GROUPS = (
    "env",
    "network",
    "storage",
    "algorithm",
    "agent",
    "pool",
    "logger",
    "callbacks",
    "augmentation",
    "intrinsic_reward",
)
# Groups whose choices are values for other places.
_SCALARS = ("experiments", "preset", "budget", "pair", "hindsight", "rainbow")


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong with the command line, with the nearest right name."""
    text = str(error)
    cause = str(error.__cause__ or "")
    missing = re.search(r"(?:Could not find|Could not load|In '.*?': Could not find) '?([^\s']+)'?", text)
    if missing:
        group, _, choice = missing.group(1).rpartition("/")
        return _no_choice(group, choice, getattr(error, "options", None) or ())
    if hasattr(error, "override"):
        return f"cannot read the argument {error.override!r}; quote values with special characters: \"key='value'\""
    several = re.search(r"Ambiguous value for argument '([^']*)'|Sweep parameters '([^']*)' requires", text)
    if several:
        argument = several[1] or several[2]
        key, _, value = argument.partition("=")
        listed = f"; one list is {key}=[{value}]" if several[1] else ""
        return f"{argument} is a sweep over several values, which needs --multirun{listed}"
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text + cause
    )
    unknown = unknown or re.search(r"Could not delete from config\. '([^']+)' does not exist", text)
    if unknown:
        key = unknown.group(1).split("@")[0]
        return f"there is no {key}{meant(key, _known_keys(arguments))}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _no_choice(group: str, choice: str, known: Sequence[str]) -> str:
    """A choice that is not there: what comes near, or how an id of Gymnasium's is given."""
    known = known or options(group)  # Hydra tells none where a list of choices has a wrong one
    near = difflib.get_close_matches(choice, known, 1)
    if group == "env" and re.search(r"-v\d+$|[:/]", choice):
        hint = f"; any Gymnasium id is given as env=gym env.id={choice}"
    else:
        hint = f"; did you mean {group}={near[0]}?" if near else ""
    return f"there is no {group}={choice}{hint}" + (f" (choices: {', '.join(known)})" if known else "")


def _known_keys(arguments: Sequence[str]) -> list[str]:
    """The keys of what can be composed of the command line, and the groups."""
    search_also(places_named(arguments))
    choices = [a for a in arguments if re.fullmatch(rf"({'|'.join(_GROUPS)})=(\w+|\[[\w\s,]+\])", a)]
    try:
        config = compose_choices(choices)
    except Exception:  # the command line has other faults too; without a suggestion, then
        return []
    keys = [group for group in _SCALARS if options(group)]

    def collect(node: DictConfig, path: str) -> None:
        for name in map(str, node):
            inner = f"{path}.{name}" if path else name
            if not name.startswith("_"):
                keys.append(inner)
                child = node._get_node(name)
                if isinstance(child, DictConfig) and OmegaConf.is_dict(child):
                    collect(child, inner)

    collect(config, "")
    return keys
