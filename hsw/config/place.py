"""Where hsw's own configs are."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """The configs: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
