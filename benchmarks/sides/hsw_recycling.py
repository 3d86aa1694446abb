"""What recycled memory spares of the CPU time of an encoder's update on 8 slots of 81 Atari stacks."""

from __future__ import annotations

import resource
import statistics

import numpy as np
import torch
from gymnasium.spaces import Box
from meter import emit, one_thread

from hsw.network.convolution import NatureCNN
from hsw.recycling import Recycler
from hsw.spaces import read_space
from hsw.storage.slots import time_major

one_thread()
torch.manual_seed(1)
block = torch.randint(0, 256, (24, 81, 4, 84, 84), dtype=torch.uint8)
encoder, recycler = NatureCNN(read_space(Box(0, 255, (4, 84, 84), np.uint8))), Recycler()
ways = {"recycled": Recycler.empty, "fresh": lambda self, shape, dtype: torch.empty(shape, dtype=dtype)}


def update(slots: range) -> None:
    encoder(time_major(block, slots, recycler).flatten(0, 1)).square().mean().backward()
    encoder.zero_grad()


def measure(way: str) -> tuple[float, int]:
    """CPU milliseconds and page faults of an update; the one before it warms up."""
    Recycler.empty = ways[way]  # type: ignore[method-assign]
    update(range(8))
    begin = resource.getrusage(resource.RUSAGE_SELF)
    update(range(8, 16))
    end = resource.getrusage(resource.RUSAGE_SELF)
    seconds = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    return 1e3 * seconds, end.ru_minflt - begin.ru_minflt


pairs = [(measure("recycled"), measure("fresh")) for _ in range(9)]
gains = [1 - recycled[0] / fresh[0] for recycled, fresh in pairs]
extra = {
    "smallest": min(gains),
    "largest": max(gains),
    "recycled_faults": pairs[-1][0][1],
    "fresh_faults": pairs[-1][1][1],
}
emit(statistics.median(gains), recycled_ms=pairs[-1][0][0], fresh_ms=pairs[-1][1][0], **extra)
