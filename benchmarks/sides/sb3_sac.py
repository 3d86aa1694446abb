"""SAC updates per second of Stable-Baselines3, on the transitions and with the settings of hsw_sac.py."""

from __future__ import annotations

import argparse

import gymnasium as gym
from meter import emit, one_thread, throughput
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure
from transitions import SPACES, rows

parser = argparse.ArgumentParser()
parser.add_argument("--cycles", type=int, default=20)
args = parser.parse_args()


class Spaces(gym.Env):
    """Nobody steps it."""

    observation_space, action_space = SPACES


one_thread()
stored, updates = 10_000, 50
model = SAC("MlpPolicy", Spaces(), learning_rate=3e-4, buffer_size=stored, batch_size=256, seed=1, device="cpu")
model.set_logger(configure(None, []))
for row in rows(SPACES, 1, stored, 1000):
    infos = [{"TimeLimit.truncated": bool(row.truncateds[0])}]
    model.replay_buffer.add(row.obs, row.next_obs, row.actions, row.rewards, row.truncateds, infos)
emit(**throughput(lambda: model.train(gradient_steps=updates, batch_size=256), updates, args.cycles))
