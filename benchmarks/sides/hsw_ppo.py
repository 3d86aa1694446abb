"""Steps per second of hsw's PPO, used as a library: CartPole on a backend, or Pong."""

from __future__ import annotations

import argparse
import contextlib

from meter import Done, Meter, emit, one_thread

from hsw.agent import OnPolicyAgent
from hsw.algorithm import PPO
from hsw.env import make_atari, make_env
from hsw.network import ActorCritic
from hsw.seeding import seed_everything
from hsw.storage import RolloutStorage

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=("cartpole", "pong"), default="cartpole")
parser.add_argument("--backend", default="sync")
parser.add_argument("--num-envs", type=int, default=8)
parser.add_argument("--num-steps", type=int, default=128)
parser.add_argument("--num-mini-batch", type=int, default=4)
parser.add_argument("--cycles", type=int, default=30)
args = parser.parse_args()

one_thread()
seed_everything(1)
num_envs, num_steps = args.num_envs, args.num_steps
env = make_env("CartPole-v1", args.backend, num_envs) if args.task == "cartpole" else make_atari("pong", num_envs)
policy = ActorCritic(env.observation_space, env.action_space)
algorithm = PPO(policy, lr=2.5e-4, lr_schedule="constant", num_mini_batch=args.num_mini_batch)
storage = RolloutStorage(env.observation_space, env.action_space, num_steps=num_steps, num_envs=num_envs)
meter = Meter(num_steps, args.cycles)
env.step = meter.wrap(env.step, lambda step: int(step.valid.sum()))

with contextlib.suppress(Done), contextlib.closing(env):
    OnPolicyAgent(env, policy=policy, algorithm=algorithm, storage=storage).train(10**9)
emit(**meter.figures)
