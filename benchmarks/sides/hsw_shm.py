"""A batch of rollouts out of shared memory, over clone() of as many bytes: `hsw_shm.py 32x20 uint8 4x84x84`."""

from __future__ import annotations

import queue
import sys

import gymnasium as gym
import numpy as np
import torch
from meter import emit, median_time, one_thread

from hsw.spaces import leaves
from hsw.storage import DistributedStorage

one_thread()
batch_size, num_steps = map(int, sys.argv[1].split("x"))
dtype, shape = sys.argv[2], tuple(map(int, sys.argv[3].split("x")))
space = gym.spaces.Box(0, 255, shape, np.dtype(dtype).type)
# Twice as many slots as a batch has: each batch is of others than the one before, and clone() has two blocks likewise.
storage = DistributedStorage(space, gym.spaces.Discrete(6), num_steps=num_steps, num_storages=2 * batch_size)
storage.init_tensors({})
for block in leaves(storage.storages):
    block.copy_(torch.randint(0, 2, block.shape).to(block.dtype))
slots: queue.SimpleQueue[int] = queue.SimpleQueue()  # a slot that is freed is soon full again
for slot in range(2 * batch_size):
    slots.put(slot)


def sample() -> dict:
    return storage.sample("cpu", batch_size, slots, slots, storage.storages, storage.init_actor_state_storages)


size = sum(part.numel() * part.element_size() for part in leaves({**sample(), "init_actor_states": {}}))
blocks = list(torch.randint(0, 256, (2, size), dtype=torch.uint8))


def clone() -> torch.Tensor:
    blocks.reverse()
    return blocks[0].clone()


copied, sampled = median_time(clone), median_time(sample)
emit(sampled / copied, sample_us=sampled * 1e6, clone_us=copied * 1e6, bytes=size)
