"""Environments behind one adapter."""

from hsw.env.make import make_atari, make_env, make_procgen
from hsw.env.vector import Episode, Step, VectorEnv

__all__ = ["Episode", "Step", "VectorEnv", "make_atari", "make_env", "make_procgen"]
