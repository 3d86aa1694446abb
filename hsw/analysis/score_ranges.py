"""What scores of a task become 0 and 1."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from hsw.errors import ConfigError

Ranges = Mapping[str, tuple[float, float]]


def read_ranges_file(file: Path) -> dict[str, tuple[float, float]]:
    """Ranges from a JSON file {"ENV": [low, high]}.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        return {str(env): (float(low), float(high)) for env, (low, high) in json.loads(file.read_text()).items()}
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f'{file} must be JSON like {{"coinrun": [5, 10]}}') from error


def read_ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ranges from ENV=LOW:HIGH.

    Raises:
        ConfigError: If one cannot be read.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for text in texts:
        env, _, ends = text.rpartition("=")
        low, _, high = ends.partition(":")
        try:
            ranges[env] = (float(low), float(high))
        except ValueError as error:
            raise ConfigError(f"--normalize={text} must be ENV=LOW:HIGH, as in coinrun=5:10") from error
    return ranges


def check_ranges(ranges: Ranges) -> None:
    """Refuse those that no scores can be measured by.

    Raises:
        ConfigError: If one does not rise.
    """
    for env, (low, high) in ranges.items():
        if not (low < high and math.isfinite(high - low) and high - low > 1e-100):
            raise ConfigError(f"the range {low:g}:{high:g} of {env} must go from a lower to a higher number")
