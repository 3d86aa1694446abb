"""Steps per second of Stable-Baselines3's PPO: CartPole in a DummyVecEnv, or Pong in EnvPool."""

from __future__ import annotations

import argparse
import contextlib

from meter import Done, Meter, emit, one_thread
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=("cartpole", "pong"), default="cartpole")
parser.add_argument("--cycles", type=int, default=30)
args = parser.parse_args()

one_thread()
num_envs, num_steps = 8, 128
if args.task == "cartpole":
    env, policy = make_vec_env("CartPole-v1", n_envs=num_envs), "MlpPolicy"
else:
    from sb3_envpool import EnvPoolVecEnv

    env, policy = EnvPoolVecEnv("Pong-v5", num_envs, stack_num=4, reward_clip=True, episodic_life=True), "CnnPolicy"
model = PPO(
    policy,
    env,
    n_steps=num_steps,
    batch_size=256,
    n_epochs=4,
    learning_rate=2.5e-4,
    clip_range=0.2,
    ent_coef=0.01,
    vf_coef=0.5,
    max_grad_norm=0.5,
    gamma=0.99,
    gae_lambda=0.95,
    device="cpu",
)
meter = Meter(num_steps, args.cycles)
env.step = meter.wrap(env.step, lambda result: num_envs)
with contextlib.suppress(Done):
    model.learn(10**9)
emit(**meter.figures)
