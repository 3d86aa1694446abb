"""A campaign: cases drawn from families until the time is over, by several processes, and their table."""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.campaign.checks import Broken
from tests.faults.campaign.families import FAMILIES
from tests.faults.campaign.kills import Tried
from tests.faults.campaign.server import adopting
from tests.faults.campaign.store import Store

Row = dict[str, Any]


def try_case(family: str, seed: int, store: Store) -> Row:
    """Try one case, which its family and seed say.

    Returns:
        family, seed, survived, what it was or what broke, exact (a kill compared bit for bit), seconds, and seconds
        of processor time of all processes that it started.
    """
    begin, used, exact = time.monotonic(), _processor_time(), False
    try:
        tried: Tried = FAMILIES[family][0](random.Random(f"{family}:{seed}"), store)
        survived, what, exact = True, tried.what, tried.exact
    except Broken as error:
        survived, what = False, str(error)
    except Exception as error:
        survived, what = False, f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}"
    seconds, cpu = round(time.monotonic() - begin, 3), round(_processor_time() - used, 3)
    what = what.encode("utf-8", "backslashreplace").decode()
    row = {"family": family, "seed": seed, "survived": survived, "what": what, "exact": exact}
    return {**row, "seconds": seconds, "cpu": cpu}


def _processor_time() -> float:
    """Of this process's children that have ended, and of theirs; what outlived its parent is adopted."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def campaign(families: Sequence[str], seed: int, seconds: float, jobs: int, results: Path) -> list[Row]:
    """Try cases for a time, in so many processes at once, each with a line of JSON in a file. Returns them."""
    store = Store()
    children = []
    try:
        for job in range(jobs):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    with adopting():
                        _work(families, seed * 1000 + job, seconds, store, results)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            children.append(pid)
        codes = [os.waitpid(pid, 0)[1] for pid in children]
    finally:
        store.close()
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    nothing = {"survived": False, "exact": False, "seconds": 0.0, "cpu": 0.0}
    broken = [{"family": "-", "seed": job, "what": f"the worker ended with {code}", **nothing}
              for job, code in enumerate(codes) if code]  # fmt: skip
    return rows + broken


def _work(families: Sequence[str], seed: int, seconds: float, store: Store, results: Path) -> None:
    rng, end = random.Random(seed), time.monotonic() + seconds
    with results.open("a") as file:
        while time.monotonic() < end:
            family = rng.choices(families, [FAMILIES[name][1] for name in families])[0]
            row = try_case(family, rng.randrange(2**31), store)
            file.write(json.dumps(row) + "\n")
            file.flush()


def table(rows: Sequence[Row], families: Sequence[str]) -> str:
    """What was tried and what survived, by family, and what did not."""
    lines = [f"{'family':<14}{'tried':>8}{'survived':>10}{'exact':>8}{'s a case':>10}{'cpu s':>8}"]
    for name in (*families, "all"):
        some = [row for row in rows if name in (row["family"], "all")]
        survived, exact = (sum(row[key] for row in some) for key in ("survived", "exact"))
        wall, cpu = (sum(row[key] for row in some) / max(1, len(some)) for key in ("seconds", "cpu"))
        lines.append(f"{name:<14}{len(some):>8}{survived:>10}{exact:>8}{wall:>10.2f}{cpu:>8.2f}")
    lines.append("exact: runs that were killed, went on, and ended bit for bit as undisturbed ones")
    for row in rows:
        if not row["survived"]:
            lines.append(f"not survived {row['family']}:{row['seed']}: {row['what'][:500]}")
    return "\n".join(lines)
