"""Transitions per second out of hsw's uniform replay of 100,000: `hsw_replay.py 256x1` is batch x environments."""

from __future__ import annotations

import sys

import numpy as np
from meter import emit, median_time, one_thread
from transitions import SPACES, rows

from hsw.storage import ReplayStorage

one_thread()
batch_size, num_envs = map(int, sys.argv[1].split("x"))
stored, episode = 100_000, 1000
size = stored * (episode + 1) // episode + num_envs  # the last observation of an episode takes a place
storage = ReplayStorage(*SPACES, storage_size=size, num_envs=num_envs, batch_size=batch_size)
terminateds = np.zeros(num_envs, bool)
for row in rows(SPACES, num_envs, stored // num_envs, episode):
    storage.add(row.obs, row.actions, row.rewards, terminateds, row.truncateds, {}, row.next_obs)
emit(batch_size / median_time(storage.sample, 3.0), stored=len(storage))
