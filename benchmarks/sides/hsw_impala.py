"""Steps per second of hsw's IMPALA, used as a library: two actors and a learner that share the machine's cores."""

from __future__ import annotations

import argparse
import contextlib

from meter import Done, LearnerMeter, emit, one_thread

from hsw.agent import DistributedAgent
from hsw.agent.actor import WAITING
from hsw.algorithm import IMPALA
from hsw.env import make_atari, make_env
from hsw.network import RecurrentActorCritic
from hsw.seeding import seed_everything
from hsw.storage import DistributedStorage

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=("cartpole", "pong"), default="cartpole")
parser.add_argument("--backend", default="sync")
parser.add_argument("--num-envs", type=int, default=16, help="of each actor")
parser.add_argument("--cycles", type=int, default=10, help="seconds to measure")
args = parser.parse_args()

one_thread()
seed_everything(1)
num_actors, num_steps, batch_size = 2, 80, 8
cartpole = args.task == "cartpole"
env = make_env("CartPole-v1", args.backend, args.num_envs) if cartpole else make_atari("pong", args.num_envs)
spaces = env.observation_space, env.action_space
policy = RecurrentActorCritic(*spaces, last_action_reward=False)
# Each actor fills one set of slots while the next lies ready; the learner holds a batch, and another is loaded.
num_storages = 2 * num_actors * args.num_envs + 2 * batch_size
agent = DistributedAgent(
    env,
    num_steps=num_steps,
    num_actors=num_actors,
    num_learners=1,
    policy=policy,
    algorithm=IMPALA(policy, lr=1e-4, lr_schedule="constant", optimizer="adam", eps=1e-5, reduction="mean"),
    storage=DistributedStorage(*spaces, num_steps=num_steps, num_storages=num_storages, batch_size=batch_size),
    log_interval=10**9,
)
meter = LearnerMeter(args.cycles)
learn = agent._learn
idle: list[tuple[float, float]] = []  # seconds in which the learner, and the actors together, had waited at each mark
lags: list[float] = []


def metered() -> dict[str, float]:
    lag = agent._sums["policy_lag"]
    info = learn()
    lags.append(agent._sums["policy_lag"] - lag)
    done = meter.learnt(agent.step)
    if len(meter.marks) > len(idle):
        idle.append((agent._waited, float(agent._actor.stats[:, WAITING].sum())))
    if done:
        raise Done
    return info


agent._learn = metered
with contextlib.suppress(Done):
    agent.train(10**9)
learner, actors = (last - first for first, last in zip(*idle, strict=True))
seconds = meter.figures["seconds"]
emit(
    **meter.figures,
    learner_idle=learner / seconds,
    actors_idle=actors / (seconds * num_actors),
    policy_lag=sum(lags) / len(lags),
)
