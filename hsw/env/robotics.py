"""Importing this registers gymnasium-robotics' environments (Fetch, Hand, mazes) with Gymnasium."""

import gymnasium as gym

from hsw.errors import ConfigError

try:
    import gymnasium_robotics
except ImportError:
    raise ConfigError("gymnasium-robotics is not installed; pip install 'hsw[robotics]'") from None

gym.register_envs(gymnasium_robotics)
