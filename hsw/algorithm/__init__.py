"""Losses with their optimisers."""

from hsw.algorithm.base import Algorithm
from hsw.algorithm.daac import DAAC
from hsw.algorithm.ppo import PPO

__all__ = ["DAAC", "PPO", "Algorithm"]
