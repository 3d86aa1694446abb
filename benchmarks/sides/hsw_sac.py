"""SAC updates per second of hsw: batches of 256 out of 10,000 random transitions, networks 256x256, no environment."""

from __future__ import annotations

import argparse

import numpy as np
from meter import emit, one_thread, throughput
from transitions import SPACES, rows

from hsw.algorithm import SAC
from hsw.network import SoftActorCritic
from hsw.seeding import seed_everything
from hsw.storage import ReplayStorage

parser = argparse.ArgumentParser()
parser.add_argument("--cycles", type=int, default=20)
args = parser.parse_args()

one_thread()
seed_everything(1)
stored, updates = 10_000, 50
algorithm = SAC(SoftActorCritic(*SPACES, hidden_sizes=[256, 256]), lr=3e-4)
storage = ReplayStorage(*SPACES, storage_size=stored + 100, batch_size=256)
for row in rows(SPACES, 1, stored, 1000):
    storage.add(row.obs, row.actions, row.rewards, np.zeros(1, bool), row.truncateds, {}, row.next_obs)


def update() -> None:
    for _ in range(updates):
        algorithm.update(storage)


emit(**throughput(update, updates, args.cycles))
