"""python -m tests.faults.campaign [--seconds 60] [--seed 0] [--only kills,links] [--case kills:123]"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.faults.campaign.families import FAMILIES
from tests.faults.campaign.server import adopting, warm
from tests.faults.campaign.store import Store
from tests.faults.campaign.work import campaign, table, try_case


def main() -> None:
    parser = argparse.ArgumentParser(prog="campaign")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at a time (as many as cores)")
    parser.add_argument("--only", metavar="FAMILY,...", help=f"some of {', '.join(FAMILIES)}")
    parser.add_argument("--case", metavar="FAMILY:SEED", help="one case again")
    parser.add_argument("--results", type=Path, default=Path("campaign.jsonl"), help="a line of JSON for each case")
    arguments = parser.parse_args()
    families = arguments.only.split(",") if arguments.only else list(FAMILIES)
    if unknown := sorted(set(families) - set(FAMILIES)):
        parser.error(f"there is no {unknown[0]}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.case:
        family, _, number = arguments.case.partition(":")
        store = Store()
        with adopting():
            row = try_case(family, int(number), store)
        store.close()
        print("survived" if row["survived"] else "not survived", row["what"])
        sys.exit(not row["survived"])
    arguments.results.unlink(missing_ok=True)
    begin = time.monotonic()
    warm("ppo", "daac", "sac", "her_sac", "impala")
    rows = campaign(families, arguments.seed, arguments.seconds, arguments.jobs, arguments.results)
    minutes = (time.monotonic() - begin) / 60
    print(table(rows, families))
    print(
        f"{len(rows)} cases in {minutes:.1f} minutes, {len(rows) / minutes:.0f} a minute; load {os.getloadavg()[1]:.1f}"
    )
    sys.exit(not all(row["survived"] for row in rows))


if __name__ == "__main__":
    main()
