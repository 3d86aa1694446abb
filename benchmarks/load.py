"""What else the machine does while something is measured, and whether the figure may then be published."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from types import TracebackType

MOST = 0.5  # cores that others may use while a figure is measured
_STAT = Path("/proc/stat")


class Besides:
    """A context that measures, in `load`, how many cores others than this process and its children kept busy within.

    Where the system does not tell what its cores do, it is
    the load average from before.
    """

    load = 0.0

    def __enter__(self) -> Besides:
        self._average = os.getloadavg()[0]
        self._begun = time.monotonic(), _busy(), _own()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        begun, busy, own = self._begun
        now = _busy()
        if busy is None or now is None:
            self.load = round(self._average, 2)
            return
        seconds = max(time.monotonic() - begun, 1e-3)
        self.load = round(max((now - busy) - (_own() - own), 0.0) / seconds, 2)


def add_option(parser: argparse.ArgumentParser) -> None:
    """--loaded, which publishes a figure all the same, with the load beside it."""
    parser.add_argument(
        "--loaded", action="store_true", help=f"publish also what was measured while others used above {MOST} cores"
    )


def publishable(name: str, loads: list[float], loaded: bool) -> bool:
    """Whether a figure may be written down; says why not.

    Args:
        name: Of the figure.
        loads: Of others, in cores, during each of its runs.
        loaded: It may be all the same; whoever writes it writes its load too.
    """
    most = max(loads, default=0.0)
    if most <= MOST or loaded:
        return True
    print(
        f"{name} is not published: others used {most:.1f} cores while it was measured, above {MOST}; measure again on "
        "a quiet machine, or write the load beside the figure with --loaded",
        file=sys.stderr,
    )
    return False


def _busy() -> float | None:
    """Seconds that all cores together have worked since the machine began."""
    try:
        fields = _STAT.read_text().partition("\n")[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds of this process, of the children that it waited for, and of what descends from it and still lives."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(place.name)], ticks[int(place.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    seconds, own = sum(os.times()[:4]), {os.getpid()}
    while added := {pid for pid, parent in parents.items() if parent in own and pid not in own}:
        own |= added
        seconds += sum(ticks[pid] for pid in added) / os.sysconf("SC_CLK_TCK")
    return seconds
