"""Steps per second of hsw's DAAC on CartPole, with rllte's settings."""

from __future__ import annotations

import argparse
import contextlib

from meter import Done, Meter, emit, one_thread

from hsw.agent import OnPolicyAgent
from hsw.algorithm import DAAC
from hsw.env import make_env
from hsw.network import DecoupledActorCritic
from hsw.seeding import seed_everything
from hsw.storage import DecoupledRolloutStorage

parser = argparse.ArgumentParser()
parser.add_argument("--backend", default="sync")
parser.add_argument("--cycles", type=int, default=20)
args = parser.parse_args()

one_thread()
seed_everything(1)
num_envs, num_steps = 8, 128
env = make_env("CartPole-v1", args.backend, num_envs)
spaces = env.observation_space, env.action_space
# rllte's critic and actor have two hidden layers of 256; its advantage network is as large, hsw's (and the authors') is
# one layer on the actor's features.
policy = DecoupledActorCritic(*spaces, hidden_sizes=[256, 256])
algorithm = DAAC(policy, lr=2.5e-4, num_mini_batch=num_envs * num_steps // 256)
storage = DecoupledRolloutStorage(*spaces, num_steps=num_steps, num_envs=num_envs, discount=0.999)
meter = Meter(num_steps, args.cycles)
env.step = meter.wrap(env.step, lambda step: int(step.valid.sum()))
with contextlib.suppress(Done), contextlib.closing(env):
    OnPolicyAgent(env, policy=policy, algorithm=algorithm, storage=storage).train(10**9)
emit(**meter.figures)
