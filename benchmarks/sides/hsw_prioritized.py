"""Prioritised draws out of 1,000,000 transitions, or another number, over uniform ones, per second of CPU time."""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from meter import emit, one_thread
from transitions import SPACES, rows

from hsw.storage import PrioritizedReplayStorage, ReplayStorage

one_thread()
stored, episode, pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, 1000, 9
size = stored * (episode + 1) // episode + 1  # the last observation of an episode takes a place
space, actions = SPACES
uniform = ReplayStorage(space, actions, storage_size=size)
prioritized = PrioritizedReplayStorage(space, actions, storage_size=size)
for row in rows(SPACES, 1, stored, episode):
    for storage in (uniform, prioritized):
        storage.add(row.obs, row.actions, row.rewards, np.zeros(1, bool), row.truncateds, {}, row.next_obs)


def cpu_seconds(storage: ReplayStorage, number: int = 100) -> float:
    begin = time.process_time()
    for _ in range(number):
        storage.sample()
    return (time.process_time() - begin) / number


ratios = []
for _ in range(pairs):  # each of the smallest of many that took turns, which others' work disturbs least
    times = [(cpu_seconds(uniform), cpu_seconds(prioritized)) for _ in range(12)]
    of_uniform, of_prioritized = map(min, zip(*times, strict=True))
    ratios.append(of_uniform / of_prioritized)
emit(statistics.median(ratios), smallest=min(ratios), largest=max(ratios), uniform_us=1e6 * of_uniform)
