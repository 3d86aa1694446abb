"""Stable-Baselines3's HerReplayBuffer, measured as hsw_her.py measures hsw's."""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
from meter import emit, median_time, one_thread
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from transitions import GOAL_SPACES, Row, compute_reward, rows

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=("sample", "add"))
parser.add_argument("--batch-size", type=int, default=256)
parser.add_argument("--num-envs", type=int, default=1)
args = parser.parse_args()


class GoalEnv(gym.Env):
    """What HerReplayBuffer asks for rewards; nobody steps it."""

    observation_space, action_space = GOAL_SPACES

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return compute_reward(achieved, desired, info)


one_thread()
stored, episode = 100_000, 50
buffer = HerReplayBuffer(
    stored,
    *GOAL_SPACES,
    env=DummyVecEnv([GoalEnv] * args.num_envs),
    device="cpu",
    n_envs=args.num_envs,
    n_sampled_goal=4,
    goal_selection_strategy="future",
    copy_info_dict=False,
)
infos = {over: [{"TimeLimit.truncated": over}] * args.num_envs for over in (False, True)}


def add(row: Row) -> None:
    buffer.add(row.obs, row.next_obs, row.actions, row.rewards, row.truncateds, infos[bool(row.truncateds[0])])


for row in rows(GOAL_SPACES, args.num_envs, stored // args.num_envs, episode):
    add(row)
in_reach = int((buffer.ep_length > 0).sum())
if args.what == "sample":
    emit(args.batch_size / median_time(lambda: buffer.sample(args.batch_size), 3.0), stored=in_reach)
else:
    played = list(rows(GOAL_SPACES, args.num_envs, episode, episode))
    emit(median_time(lambda: [add(row) for row in played], 3.0) / episode * 1e6, stored=in_reach)
