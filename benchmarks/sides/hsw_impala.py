"""Steps per second of hsw's IMPALA, used as a library: two actors and a learner that share the machine's cores."""

from __future__ import annotations

import argparse
import time

from meter import LearnerMeter, emit, one_thread

from hsw.agent import DistributedAgent
from hsw.algorithm import IMPALA
from hsw.env import make_atari, make_env
from hsw.network import RecurrentActorCritic
from hsw.run.callback import Callback
from hsw.seeding import seed_everything
from hsw.storage import DistributedStorage

parser = argparse.ArgumentParser()
parser.add_argument("--task", choices=("cartpole", "pong"), default="cartpole")
parser.add_argument("--backend", default="sync")
parser.add_argument("--num-envs", type=int, default=16, help="of each actor")
parser.add_argument("--num-actors", type=int, default=2)
parser.add_argument("--cycles", type=int, default=10, help="seconds to measure")
args = parser.parse_args()


class Watch(Callback):
    """Meters the learner, and how long it and the actors wait, until enough was measured."""

    def __init__(self) -> None:
        self.meter = LearnerMeter(args.cycles)
        self.last = time.perf_counter()
        self.waits: list[tuple[float, float, float]] = []  # seconds of an iteration, of them the learner's, the actors'
        self.lags: list[float] = []

    def on_iteration_end(self, agent: DistributedAgent, metrics: dict[str, float]) -> None:
        seconds, self.last = time.perf_counter() - self.last, time.perf_counter()
        if self.meter.marks:
            shares = metrics["speed/learner_idle"], metrics["speed/actors_idle"]
            self.waits.append((seconds, *(seconds * share for share in shares)))
            self.lags.append(metrics["learn/policy_lag"])
        if self.meter.learnt(agent.step):
            agent.request_stop("measured")

    @property
    def figures(self) -> dict[str, float]:
        seconds, learner, actors = map(sum, zip(*self.waits, strict=True))
        lag = sum(self.lags) / len(self.lags)
        return {
            **self.meter.figures,
            "learner_idle": learner / seconds,
            "actors_idle": actors / seconds,
            "policy_lag": lag,
        }


one_thread()
seed_everything(1)
num_actors, num_steps, batch_size = args.num_actors, 80, 8
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
    log_interval=batch_size * num_steps,  # each update or two
    callbacks=[watch := Watch()],
)
agent.train(10**9)
emit(**watch.figures)
