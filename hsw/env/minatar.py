"""Importing this registers MinAtar's environments (Young & Tian 2019, arXiv:1903.03176) with Gymnasium."""

from gymnasium.envs.registration import registry

from hsw.errors import ConfigError

try:
    from minatar.gym import register_envs
except ImportError:
    raise ConfigError("MinAtar is not installed; pip install 'hsw[mini]'") from None

if "MinAtar/Breakout-v1" not in registry:
    register_envs()
