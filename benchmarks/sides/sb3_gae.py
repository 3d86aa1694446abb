"""Microseconds of Stable-Baselines3's RolloutBuffer.compute_returns_and_advantage."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import torch
from meter import emit, median_time, one_thread
from stable_baselines3.common.buffers import RolloutBuffer

one_thread()
num_steps, num_envs = map(int, sys.argv[1].split("x"))
rng = np.random.default_rng(1)
buffer = RolloutBuffer(num_steps, gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2), n_envs=num_envs)
buffer.rewards[:] = rng.standard_normal((num_steps, num_envs))
buffer.values[:] = rng.standard_normal((num_steps, num_envs))
buffer.episode_starts[:] = rng.random((num_steps, num_envs)) < 0.04
last_values, dones = torch.randn(num_envs), np.zeros(num_envs, np.float32)
emit(median_time(lambda: buffer.compute_returns_and_advantage(last_values, dones)) * 1e6)
