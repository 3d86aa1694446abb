"""One uint8 minibatch's observations out of a rollout, over clone() of as many bytes: `hsw_gather.py 2048 3x64x64`."""

from __future__ import annotations

import sys

import torch
from meter import emit, median_time, one_thread

from hsw.storage.base import gather

one_thread()
rows, shape = int(sys.argv[1]), tuple(map(int, sys.argv[2].split("x")))
torch.manual_seed(1)
rollout = torch.randint(0, 256, (8 * rows, *shape), dtype=torch.uint8)
batches = [indices.clone() for indices in torch.randperm(len(rollout)).split(rows)]
blocks = rollout.split(rows)
turn = 0


def next_turn() -> int:
    """Another part of the rollout at each call, as in training: none lies in the cache from the call before."""
    global turn
    turn = (turn + 1) % len(batches)
    return turn


copied = median_time(lambda: blocks[next_turn()].clone())
gathered = median_time(lambda: gather(rollout, batches[next_turn()]))
emit(gathered / copied, gather_us=gathered * 1e6, clone_us=copied * 1e6)
