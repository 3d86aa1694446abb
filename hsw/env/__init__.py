"""Environments behind one adapter."""

from hsw.env.adapt import as_vector_env, remaker, vector_of
from hsw.env.counts import Episode, Step
from hsw.env.families import make_ale, make_dm_control, make_minatar, make_minigrid
from hsw.env.goals import GoalFunctions
from hsw.env.make import make_atari, make_env, make_procgen
from hsw.env.vector import VectorEnv

__all__ = [
    "Episode",
    "GoalFunctions",
    "Step",
    "VectorEnv",
    "as_vector_env",
    "make_ale",
    "make_atari",
    "make_dm_control",
    "make_env",
    "make_minatar",
    "make_minigrid",
    "make_procgen",
    "remaker",
    "vector_of",
]
