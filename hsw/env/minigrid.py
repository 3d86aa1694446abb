"""Importing this registers MiniGrid's environments (Chevalier-Boisvert et al. 2023, arXiv:2306.13831)."""

from hsw.errors import ConfigError

try:
    import minigrid  # noqa: F401
except ImportError:
    raise ConfigError("minigrid is not installed; pip install 'hsw[minigrid]'") from None
