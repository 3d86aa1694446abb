"""Steps per second of Stable-Baselines3's SAC: HalfCheetah, or FetchReach with HER and normalised observations."""

from __future__ import annotations

import argparse
import contextlib

import gymnasium as gym
from meter import Done, Meter, Timed, emit, one_thread
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

parser = argparse.ArgumentParser()
parser.add_argument("task", choices=("halfcheetah", "fetch_reach"))
parser.add_argument("--cycles", type=int, default=15)
args = parser.parse_args()

one_thread()
if args.task == "halfcheetah":
    env, policy = make_vec_env("HalfCheetah-v5", n_envs=1), "MlpPolicy"
    options = {"learning_rate": 3e-4}
else:
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    env, policy = VecNormalize(make_vec_env("FetchReach-v4", n_envs=1), norm_reward=False), "MultiInputPolicy"
    options = {
        "learning_rate": 1e-3,
        "gamma": 0.95,
        "policy_kwargs": {"net_arch": [64, 64]},
        "replay_buffer_class": HerReplayBuffer,
        "replay_buffer_kwargs": {"n_sampled_goal": 4, "goal_selection_strategy": "future"},
    }
# The first update is in the cycle that warms up; HER's needs a whole episode of 50 steps.
model = SAC(policy, env, batch_size=256, learning_starts=60, seed=1, device="cpu", **options)
meter = Meter(100, args.cycles)
add = Timed(model.replay_buffer.add)
model.replay_buffer.add = add
env.step = meter.wrap(env.step, lambda result: 1)
with contextlib.suppress(Done):
    model.learn(10**9)
calls = meter.rows * args.cycles  # the last ones are those of the metered cycles
emit(**meter.figures, add_us=sum(add.seconds[-calls:]) / calls * 1e6)
