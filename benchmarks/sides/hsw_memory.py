"""Growth of resident memory while a Procgen rollout is collected, over the bytes of the rollout's tensors."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import torch
from meter import Done, emit, one_thread

from hsw.agent import OnPolicyAgent
from hsw.algorithm import DAAC
from hsw.env import make_procgen
from hsw.network import DecoupledActorCritic
from hsw.storage import DecoupledRolloutStorage

parser = argparse.ArgumentParser()
parser.add_argument("--num-envs", type=int, default=64)
parser.add_argument("--num-steps", type=int, default=256)
args = parser.parse_args()


def resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


one_thread()
env = make_procgen("coinrun", num_envs=args.num_envs)
spaces = env.observation_space, env.action_space
policy = DecoupledActorCritic(*spaces)


class Storage(DecoupledRolloutStorage):
    """Ends the run when the rollout is full."""

    def before_gradients(self, actor: Any, algo: Any, *rest: Any) -> None:
        raise Done


storage = Storage(*spaces, num_steps=args.num_steps, num_envs=args.num_envs)
agent = OnPolicyAgent(env, policy=policy, algorithm=DAAC(policy), storage=storage)
agent.obs = env.reset()
for _ in range(3):  # what acting and stepping allocate once, without a rollout
    with torch.inference_mode():
        actions, _ = policy.act(torch.from_numpy(agent.obs))
    agent.obs = env.step(actions.numpy()).obs
before = resident()
with contextlib.suppress(Done):
    agent.train(10**9)
grown = resident() - before
tensors = [value for value in vars(storage).values() if isinstance(value, torch.Tensor)]
held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
env.close()
emit(grown / held, grown_mb=grown / 1e6, rollout_mb=held / 1e6)
