"""Environments behind one adapter."""

from hsw.env.goals import GoalFunctions
from hsw.env.make import make_atari, make_env, make_procgen, remaker, vector_of
from hsw.env.vector import Episode, Step, VectorEnv

__all__ = [
    "Episode",
    "GoalFunctions",
    "Step",
    "VectorEnv",
    "make_atari",
    "make_env",
    "make_procgen",
    "remaker",
    "vector_of",
]
