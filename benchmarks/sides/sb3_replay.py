"""Transitions per second out of Stable-Baselines3's ReplayBuffer, filled as hsw_replay.py fills hsw's."""

from __future__ import annotations

import sys

from meter import emit, median_time, one_thread
from stable_baselines3.common.buffers import ReplayBuffer
from transitions import SPACES, rows

one_thread()
batch_size, num_envs = map(int, sys.argv[1].split("x"))
stored, episode = 100_000, 1000
buffer = ReplayBuffer(stored, *SPACES, device="cpu", n_envs=num_envs)
for row in rows(SPACES, num_envs, stored // num_envs, episode):
    infos = [{"TimeLimit.truncated": bool(over)} for over in row.truncateds]
    buffer.add(row.obs, row.next_obs, row.actions, row.rewards, row.truncateds, infos)
emit(batch_size / median_time(lambda: buffer.sample(batch_size), 3.0), stored=buffer.size() * num_envs)
