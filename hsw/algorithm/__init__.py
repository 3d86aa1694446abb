"""Losses with their optimisers."""

from hsw.algorithm.a2c import A2C
from hsw.algorithm.base import Algorithm
from hsw.algorithm.daac import DAAC
from hsw.algorithm.dqn import DQN
from hsw.algorithm.impala import IMPALA
from hsw.algorithm.ppo import PPO
from hsw.algorithm.recurrent_ppo import RecurrentPPO
from hsw.algorithm.rnd import RND
from hsw.algorithm.sac import SAC
from hsw.algorithm.td3 import TD3
from hsw.algorithm.two_stream_ppo import TwoStreamPPO

__all__ = ["A2C", "DAAC", "DQN", "IMPALA", "PPO", "RND", "SAC", "TD3", "Algorithm", "RecurrentPPO", "TwoStreamPPO"]
