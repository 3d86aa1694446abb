"""Where an iteration's time goes: a trace of torch's profiler, and a table of time by phase."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from hsw.agent.figures import Clock
from hsw.directory import Directory
from hsw.errors import HswError

log = logging.getLogger("hsw")
WARM_UP, TRACED = 1, 3  # iterations
_OPERATIONS = 15  # in the table


class ProfilingClock(Clock):
    """A Clock that also profiles three iterations after a warm-up, once.

    An iteration is collecting and an update, of whichever loop: what lies between two calls of turn with an update
    between them.

    Args:
        folder: The run's, which gets a folder profile with trace.json and phases.md.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spans: list[tuple[str, int, int]] = []  # a phase, and when it began and ended, in ns of perf_counter
        self._turns, self._updated = 0, False
        self._begun = self._total = 0  # when an iteration began, and how long those that are traced took, in ns
        self._profiler: Any = None
        self._done = False
        super().__init__()

    def begin(self) -> None:
        super().begin()
        if self._profiler is None and not self._done:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._profiler = torch.profiler.profile(
                activities=kinds, schedule=torch.profiler.schedule(wait=0, warmup=WARM_UP, active=TRACED, repeat=1)
            )
            self._profiler.start()

    def mark(self, phase: str | None = None) -> None:
        self._span(phase, self._mark)
        super().mark(phase)

    def skip(self) -> None:
        self._span("waiting", self._last)
        super().skip()

    def _span(self, phase: str | None, begun: float) -> None:
        if self._profiler is not None and phase is not None:
            self._updated = self._updated or phase == "update"
            if self._turns >= WARM_UP:
                self._spans.append((phase, int(begun * 1e9), time.perf_counter_ns()))

    def turn(self) -> None:
        if self._profiler is None or not self._updated:
            return
        self._turns, self._updated = self._turns + 1, False
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what an iteration has started is its own
        now = time.perf_counter_ns()
        self._total += (now - self._begun) * (self._turns > WARM_UP)
        if self._turns == WARM_UP + TRACED:
            self.close()
            return
        self._profiler.step()
        self._begun = time.perf_counter_ns()  # without the profiler's own work

    def close(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler, self._done = self._profiler, None, True
        profiler.stop()
        if (traced := self._turns - WARM_UP) < 1:
            log.warning("profile=true: the run ended before a second iteration, and nothing was profiled")
            return
        try:
            with Directory.open(self._folder) as run, run.enter("profile", create=True) as place:
                place.replace("trace.json", self._trace(profiler))
                place.replace("phases.md", self._table(profiler, traced, self._total).encode())
        except (OSError, HswError) as error:
            log.warning("the profile is not written: %s", error)
        self._spans.clear()

    def _trace(self, profiler: Any) -> bytes:
        """torch's trace, for chrome://tracing or ui.perfetto.dev, with a row of the phases."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "trace.json"
            profiler.export_chrome_trace(str(path))
            trace = json.loads(path.read_bytes())
        offset = time.time_ns() - time.perf_counter_ns() - int(trace.get("baseTimeNanoseconds", 0))
        common = {"ph": "X", "cat": "phase", "pid": os.getpid(), "tid": "phases"}
        trace["traceEvents"] += [
            {**common, "name": name, "ts": (begin + offset) / 1000, "dur": (end - begin) / 1000}
            for name, begin, end in self._spans
        ]
        return json.dumps(trace).encode()

    def _table(self, profiler: Any, iterations: int, total: int) -> str:
        """Markdown: milliseconds of an iteration by phase, then the operations that took most."""
        sums: dict[str, int] = defaultdict(int)
        for name, begin, end in self._spans:
            sums[name] += end - begin
        sums["rest"] = total - sum(sums.values())
        lines = [
            "# Time by phase",
            "",
            f"The mean of {iterations} iteration{'s' * (iterations > 1)} after {WARM_UP} of warm-up. torch's profiler",
            "watched, which slows small operations; speed/*_share in metrics.jsonl are without it. On a GPU a phase is",
            "the time until its work was handed over.",
            "",
            "| phase | ms an iteration | share |",
            "|---|---|---|",
        ]
        for name, spent in [*sums.items(), ("all", total)]:
            lines.append(f"| {name} | {spent / iterations / 1e6:.3f} | {spent / total:.1%} |")
        events = profiler.key_averages()
        on_device = any(event.self_device_time_total for event in events)
        kind = "self_device_time_total" if on_device else "self_cpu_time_total"
        lines += ["", f"| operation, by its own {'GPU' if on_device else 'CPU'} time | calls | ms an iteration |"]
        lines.append("|---|---|---|")
        most = sorted(events, key=lambda event: getattr(event, kind), reverse=True)
        for event in [event for event in most if not event.key.startswith("ProfilerStep")][:_OPERATIONS]:
            spent, calls = getattr(event, kind) / iterations / 1e3, event.count / iterations
            lines.append(f"| `{event.key.replace('|', '/')}` | {calls:.0f} | {spent:.3f} |")
        return "\n".join(lines) + "\n"
