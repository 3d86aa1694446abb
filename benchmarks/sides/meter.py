"""What every measuring script shares: one torch thread, a meter at the vector-env step, one JSON line."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
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


class LearnerMeter:
    """Counts environment steps from one of the learner's batches to another, wherever actors collect them meanwhile.

    Args:
        cycles: Seconds to measure at least; what the learner had within the first WARM_UP of its work is left out.
    """

    WARM_UP = 3.0

    def __init__(self, cycles: int) -> None:
        self._cycles = cycles
        self._first: float | None = None
        self.marks: list[tuple[float, float, int]] = []  # wall clock, CPU time of all processes, steps so far

    def learnt(self, steps: int) -> bool:
        """The learner has learnt from so many steps since it began. Returns whether that is enough."""
        now = time.perf_counter()
        self._first = self._first or now
        begin = self.marks[0][0] + self._cycles if self.marks else self._first + self.WARM_UP
        if now >= begin:
            self.marks.append((now, family_cpu_time(), steps))
        return len(self.marks) == 2

    @property
    def figures(self) -> dict[str, Any]:
        """As Meter's; seconds is how long was measured, and cores how many processors worked on average."""
        wall, cpu, steps = (last - first for first, last in zip(*self.marks, strict=True))
        return {
            "value": steps / wall,
            "per_cpu_second": steps / cpu,
            "steps": steps,
            "seconds": wall,
            "cores": cpu / wall,
        }


def family() -> dict[int, float]:
    """This process and those that it, or they, have started: CPU seconds by process id."""
    parents, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            seconds[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found = [os.getpid()]
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == pid]
    return {pid: seconds[pid] for pid in found}


def family_cpu_time() -> float:
    return sum(family().values())


class Timed:
    """A function that remembers how long each of its calls took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.seconds.append(time.perf_counter() - begin)
        return result


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


def throughput(function: Callable[[], Any], number: int, cycles: int) -> dict[str, Any]:
    """Figures as Meter's of a function that does a number of things; the first call warms up."""
    function()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(cycles):
        function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = number * cycles
    return {"value": done / wall, "per_cpu_second": done / cpu, "number": done}


def seconds_since_start() -> float:
    """Since the operating system started this process."""
    with open("/proc/self/stat") as stat:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def emit(value: float, **extra: Any) -> None:
    """The one line that benchmarks.run reads."""
    versions = {}
    for name in (
        "torch",
        "numpy",
        "gymnasium",
        "stable_baselines3",
        "sample_factory",
        "ale_py",
        "envpool",
        "mujoco",
        "gymnasium_robotics",
        "hsw",
    ):
        if name in sys.modules:
            versions[name] = str(getattr(sys.modules[name], "__version__", None) or metadata.version(name))
    print(json.dumps({"value": value, **extra, "versions": versions}), flush=True)
