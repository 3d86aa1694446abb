"""Losses with their optimisers."""

from hsw.algorithm.base import Algorithm
from hsw.algorithm.daac import DAAC
from hsw.algorithm.impala import IMPALA
from hsw.algorithm.ppo import PPO
from hsw.algorithm.sac import SAC

__all__ = ["DAAC", "IMPALA", "PPO", "SAC", "Algorithm"]
