"""What every measuring script shares: one torch thread, a meter at the vector-env step, one JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


class Done(BaseException):
    """Ends a training loop from within its environment's step."""


class Meter:
    """Counts environment steps over whole cycles of collecting and updating, seen from the vector env's step.

    A cycle begins when its first step does and ends when the next cycle's begins. The first one warms up.

    Args:
        rows: Vector-env steps per cycle.
        cycles: Cycles to measure; then the step raises Done.
    """

    def __init__(self, rows: int, cycles: int) -> None:
        self.rows, self.cycles = rows, cycles
        self.calls = self.steps = 0
        self.marks: list[tuple[float, float, int]] = []  # wall clock, CPU time, steps so far

    def wrap(self, step: Callable[..., Any], count: Callable[[Any], int]) -> Callable[..., Any]:
        """The same step, metered; count tells how many environments moved (a reset row is no step)."""

        def metered(*args: Any, **kwargs: Any) -> Any:
            if self.calls % self.rows == 0:
                self.marks.append((time.perf_counter(), time.process_time(), self.steps))
                if len(self.marks) == self.cycles + 2:
                    raise Done
            self.calls += 1
            result = step(*args, **kwargs)
            self.steps += count(result)
            return result

        return metered

    @property
    def figures(self) -> dict[str, Any]:
        """Steps per second, and per second of CPU time, which says more on a machine that others use too."""
        wall, cpu, steps = (last - first for first, last in zip(self.marks[1], self.marks[-1], strict=True))
        return {"value": steps / wall, "per_cpu_second": steps / cpu, "steps": steps}


def median_time(function: Callable[[], Any], seconds: float = 1.0) -> float:
    """Median seconds of one call, in batches of about 10 ms."""
    for _ in range(3):
        function()
    begin = time.perf_counter()
    function()
    number = max(1, int(0.01 / max(time.perf_counter() - begin, 1e-7)))
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        for _ in range(number):
            function()
        times.append((time.perf_counter() - begin) / number)
    return float(np.median(times))


def seconds_since_start() -> float:
    """Since the operating system started this process."""
    with open("/proc/self/stat") as stat:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def emit(value: float, **extra: Any) -> None:
    """The one line that benchmarks.run reads."""
    versions = {}
    for name in ("torch", "numpy", "gymnasium", "stable_baselines3", "envpool", "hsw"):
        module = sys.modules.get(name)
        if module is not None:
            versions[name] = str(getattr(module, "__version__", "?"))
    print(json.dumps({"value": value, **extra, "versions": versions}), flush=True)
