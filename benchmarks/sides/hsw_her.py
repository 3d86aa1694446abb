"""hsw's HER with 100,000 transitions, or another number: those drawn per second, or microseconds to store a row."""

from __future__ import annotations

import argparse

import numpy as np
from meter import emit, median_time, one_thread
from transitions import GOAL_SPACES, Row, compute_reward, rows

from hsw.storage import HerReplayStorage

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=("sample", "add"))
parser.add_argument("--batch-size", type=int, default=256)
parser.add_argument("--num-envs", type=int, default=1)
parser.add_argument("--stored", type=int, default=100_000)
args = parser.parse_args()

one_thread()
stored, episode = args.stored, 50
storage = HerReplayStorage(
    *GOAL_SPACES,
    storage_size=stored * (episode + 1) // episode,  # the last observation of an episode takes a place
    num_envs=args.num_envs,
    batch_size=args.batch_size,
    num_goals=4,
    reward_fn=compute_reward,
)
terminateds = np.zeros(args.num_envs, bool)


def add(row: Row) -> None:
    storage.add(row.obs, row.actions, row.rewards, terminateds, row.truncateds, {}, row.next_obs)


for row in rows(GOAL_SPACES, args.num_envs, stored // args.num_envs, episode):
    add(row)
if args.what == "sample":
    emit(args.batch_size / median_time(storage.sample, 3.0), stored=len(storage))
else:
    played = list(rows(GOAL_SPACES, args.num_envs, episode, episode))
    emit(median_time(lambda: [add(row) for row in played], 3.0) / episode * 1e6, stored=len(storage))
