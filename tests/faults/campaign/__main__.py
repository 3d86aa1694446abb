"""python -m tests.faults.campaign [--seconds 60] [--seed 0] [--jobs 2] [--families kills,links] [--case kills:123]"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

from tests.faults.campaign.families import FAMILIES, Store
from tests.faults.campaign.harness import Broken


def try_case(family: str, seed: int, store: Store) -> tuple[bool, str]:
    """Try one case, which its family and seed say. Returns whether it survived, and what it was or what broke."""
    try:
        return True, FAMILIES[family][0](random.Random(f"{family}:{seed}"), store)
    except Broken as error:
        return False, str(error)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}"


def work(families: list[str], seed: int, seconds: float, results: Path) -> None:
    """Try cases until the time is over, a line of JSON for each."""
    rng, store, end = random.Random(seed), Store(), time.monotonic() + seconds
    try:
        with results.open("a") as file:
            while time.monotonic() < end:
                family = rng.choices(families, [FAMILIES[name][1] for name in families])[0]
                number = rng.randrange(2**31)
                survived, what = try_case(family, number, store)
                row = {"family": family, "seed": number, "survived": survived, "what": what}
                file.write(json.dumps(row) + "\n")
                file.flush()
    finally:
        store.close()


def campaign(families: list[str], seed: int, seconds: float, jobs: int, results: Path) -> list[dict]:
    """Try cases in so many processes at once. Returns every case's row."""
    torch.set_num_threads(1)
    children = []
    for job in range(jobs):
        pid = os.fork()
        if pid == 0:
            try:
                work(families, seed * 1000 + job, seconds, results)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    return [json.loads(line) for line in results.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="campaign")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--case", metavar="FAMILY:SEED", help="one case again")
    parser.add_argument("--results", type=Path, default=Path("campaign.jsonl"))
    arguments = parser.parse_args()
    if arguments.case:
        family, _, number = arguments.case.partition(":")
        store = Store()
        survived, what = try_case(family, int(number), store)
        store.close()
        print("survived" if survived else "broken", what)
        sys.exit(not survived)
    arguments.results.unlink(missing_ok=True)
    families = arguments.families.split(",")
    rows = campaign(families, arguments.seed, arguments.seconds, arguments.jobs, arguments.results)
    tried, survived = (Counter(row["family"] for row in rows if row["survived"] or all_) for all_ in (True, False))
    print(f"{'family':<14}{'tried':>8}{'survived':>10}")
    for family in families:
        print(f"{family:<14}{tried[family]:>8}{survived[family]:>10}")
    print(f"{'all':<14}{tried.total():>8}{survived.total():>10}")
    for row in rows:
        if not row["survived"]:
            print(f"{row['family']}:{row['seed']}: {row['what'][:300]}")
    sys.exit(survived.total() < tried.total())


if __name__ == "__main__":
    main()
