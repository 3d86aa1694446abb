"""hsw's SAC as a library, one environment, one update per step: HalfCheetah, or FetchReach with HER.

The figure is the steps per second, or what storage.add takes of them: of the loop's time with updates, or of the time
in env.step and add where there are none.
"""

from __future__ import annotations

import argparse
import contextlib

from meter import Done, Meter, Timed, emit, one_thread

from hsw.agent import OffPolicyAgent
from hsw.algorithm import SAC
from hsw.env import make_env
from hsw.network import SoftActorCritic
from hsw.seeding import seed_everything
from hsw.storage import HerReplayStorage, ReplayStorage

parser = argparse.ArgumentParser()
parser.add_argument("task", choices=("halfcheetah", "fetch_reach"))
parser.add_argument("--figure", choices=("steps", "add_of_loop", "add_of_collecting"), default="steps")
parser.add_argument("--cycles", type=int, default=15)
args = parser.parse_args()

one_thread()
seed_everything(1)
if args.task == "halfcheetah":
    env = make_env("HalfCheetah-v5", num_envs=1)
    policy = SoftActorCritic(env.observation_space, env.action_space, hidden_sizes=[256, 256])
    algorithm = SAC(policy, lr=3e-4)
    storage = ReplayStorage(env.observation_space, env.action_space, batch_size=256)
else:
    env = make_env("hsw.env.robotics:FetchReach-v4", num_envs=1)
    policy = SoftActorCritic(env.observation_space, env.action_space, hidden_sizes=[64, 64], normalize_obs=True)
    algorithm = SAC(policy, lr=1e-3)
    storage = HerReplayStorage(env.observation_space, env.action_space, batch_size=256, num_goals=4, discount=0.95)
meter = Meter(100, args.cycles)
step, add = Timed(env.step), Timed(storage.add)
env.step = meter.wrap(step, lambda result: int(result.valid.sum()))
storage.add = add
warmup = 10**9 if args.figure == "add_of_collecting" else 60
with contextlib.suppress(Done), contextlib.closing(env):
    OffPolicyAgent(env, policy=policy, algorithm=algorithm, storage=storage, num_warmup_steps=warmup).train(10**9)
calls = meter.rows * args.cycles  # the last ones are those of the metered cycles
step_seconds, add_seconds = sum(step.seconds[-calls:]), sum(add.seconds[-calls:])
figures = {**meter.figures, "step_us": step_seconds / calls * 1e6, "add_us": add_seconds / calls * 1e6}
if args.figure == "add_of_loop":
    figures["value"] = add_seconds / (meter.marks[-1][0] - meter.marks[1][0])
elif args.figure == "add_of_collecting":
    figures["value"] = add_seconds / (step_seconds + add_seconds)
emit(**figures)
