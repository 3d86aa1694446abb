"""Microseconds of hsw's GAE over a float32 rollout; SB3's row in sb3_gae.py is given the same one."""

from __future__ import annotations

import sys

import torch
from meter import emit, median_time, one_thread

from hsw.returns import gae

one_thread()
num_steps, num_envs = map(int, sys.argv[1].split("x"))
torch.manual_seed(1)
rewards, values = torch.randn(num_steps, num_envs), torch.randn(num_steps + 1, num_envs)
terminateds, truncateds = torch.rand(2, num_steps, num_envs) < 0.02
valid = torch.ones_like(terminateds)
valid[1:] = ~(terminateds | truncateds)[:-1]


def run() -> torch.Tensor:
    advantages = gae(rewards, values, terminateds, truncateds, 0.99, 0.95, valid)
    return advantages + values[:-1]  # SB3's call computes the returns too


emit(median_time(run) * 1e6)
