"""Keys and passwords: known by what they are, so that no file that a run writes holds one."""

from __future__ import annotations

import functools
import os
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from hsw.errors import ConfigError

REMOVED = "[removed]"
_SHORTEST = 12
# A whole part of a name: GITHUB_TOKEN and apiKey have one, TOKENIZERS_PARALLELISM and MONKEY none.
_WORDS = {"TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "APIKEY"}
# Of a config's key: one that can mean nothing else.
_NAMES = re.compile(r"\b(?:API KEY|APIKEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(?:ACCESS|AUTH) TOKEN)\b")
_KNOWN = re.compile(
    r"\b(?:"
    r"hf_[A-Za-z0-9]{16,}"
    r"|gh[opsur]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|xox[abprs]-[\w-]{10,}"
    r")"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)",  # of a URL
    re.DOTALL,
)


def environment_secrets(environment: Mapping[str, str] | None = None) -> list[str]:
    """The values of environment variables that are secrets, the longest first.

    A secret is the value of a variable that has TOKEN, KEY, SECRET, PASSWORD or CREDENTIAL as a whole part of its name:
    12 characters or more, and no path, number or plain word.
    """
    variables = os.environ if environment is None else environment
    found = {value for name, value in variables.items() if names_secret(name) and _is_secret(value)}
    return sorted(found, key=len, reverse=True)


@functools.lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Whether a variable's name has a whole part that means a secret: API_KEY, githubToken; not TOKENIZERS_PARALLEL."""
    return any(part in _WORDS for part in _parts(name))


def redact(text: str) -> str:
    """A text without the secrets in it: those of the environment, and what has a known form of one."""
    return _without(text, environment_secrets())


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return _KNOWN.sub(REMOVED, text)


def redact_all(value: Any) -> Any:
    """Nested plain values, every text in them redacted."""
    return _without_any(value, environment_secrets())


def _without_any(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _without(value, secrets)
    if isinstance(value, dict):
        return {_without_any(key, secrets): _without_any(item, secrets) for key, item in value.items()}
    return [_without_any(item, secrets) for item in value] if isinstance(value, list | tuple) else value


def refuse(arguments: Iterable[str]) -> None:
    """Keep secrets out of configs, which are saved, logged and uploaded.

    Args:
        arguments: As on a command line, name=value.

    Raises:
        ConfigError: If a value has a secret in it, or a name is a secret's; it never says the value.
    """
    secrets = environment_secrets()
    for argument in arguments:
        name = argument.partition("=")[0]
        if _KNOWN.search(argument) or any(secret in argument for secret in secrets):
            why = "has the value of a secret, and configs are saved; leave it in the environment"
            raise ConfigError(f"{redact(name)} {why}")
        if _means_secret(name):
            why = "looks like a secret, and configs are saved; set it in the environment instead"
            raise ConfigError(f"{redact(name)} {why}")


@functools.lru_cache(maxsize=4096)
def _means_secret(name: str) -> bool:
    return bool(_NAMES.search(" ".join(_parts(name))))


def _parts(name: str) -> list[str]:
    return [part.upper() for part in re.split(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])", name)]


def _is_secret(value: str) -> bool:
    if len(value) < _SHORTEST or any(space in value for space in string.whitespace):
        return "-----BEGIN" in value
    number = re.fullmatch(r"[\d.,:eE+-]+", value)
    path = re.fullmatch(r"(?:~|\.\.?)?(?:/[\w.@+ -]+)+/?|[A-Za-z]:\\.*|(?:[\w.-]+/)+[\w-]*\.\w{1,5}", value)
    place = re.match(r"[a-z][a-z0-9+.-]*://[^?@]*$", value)
    word = re.fullmatch(r"[A-Za-z]?[a-z]+|[A-Z]+", value)
    return not (number or path or place or word)
