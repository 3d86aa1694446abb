"""python -m tests.faults.campaign.sweep_kills [--kills 20] [--seed 0] [--launchers joblib]

The main process of a sweep is killed at random moments. Each time: what is left of it after five seconds, how the same
command then ends, and whether its table and its networks are those of a sweep that nothing disturbed.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.campaign.server import carrying
from tests.runs import ROOT, TINY, differences, newest

SEEDS = (1, 2, 3)
FIRST, LAST = 1.0, 15.0  # seconds from a sweep's start to its end


@dataclass
class Kill:
    """One kill of a sweep's main process.

    Attributes:
        launcher: Of the sweep.
        moment: Seconds after its start; `jobs` says what had become of its jobs by then.
        orphans: Processes of it that are left after five seconds; `patience` says when none was.
        code: With which the same command ends afterwards.
        table, networks: Whether they are as they would have been.
    """

    launcher: str
    moment: float
    jobs: str
    orphans: int
    patience: float
    code: int
    table: bool
    networks: bool
    said: str = ""

    @property
    def survived(self) -> bool:
        return self.orphans == 0 and self.code == 0 and self.table and self.networks

    def __str__(self) -> str:
        left = f"{self.orphans} left" if self.orphans else f"none after {self.patience:.1f} s"
        verdicts = " ".join("same" if same else "OTHER" for same in (self.table, self.networks))
        return (
            f"{self.launcher:<16}{self.moment:>6.2f}  {self.jobs:<24}{left:<20}{self.code:>4}  {verdicts} {self.said}"
        )


def command(launcher: str, place: Path) -> list[str]:
    sweep = ("--multirun", *TINY, "seed=" + ",".join(map(str, SEEDS)), f"hydra.sweep.dir={place}/sweep")
    pair = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
    length = ("num_train_steps=3000", "checkpoint_interval=200")
    return [sys.executable, "-m", "hsw.train", *sweep, *length, f"hydra/launcher={launcher}", *pair]


def run(launcher: str, place: Path) -> subprocess.CompletedProcess[str]:
    """The whole sweep."""
    return subprocess.run(command(launcher, place), cwd=ROOT, capture_output=True, text=True, timeout=400)


def table(place: Path) -> list[dict[str, str]]:
    """A sweep's table, without what is told of time."""
    with (place / "sweep" / "jobs.csv").open() as file:
        return [
            {key: row[key] for key in ("job", "status", "return", "steps", "exit_code")} for row in csv.DictReader(file)
        ]


def networks(place: Path) -> list[Any]:
    """What the jobs of a sweep have learnt."""
    states = [newest(place / "sweep" / f"seed-{seed}") for seed in SEEDS]
    return [{key: state[key] for key in ("policy", "algorithm", "step")} for state in states]


def kill_at(launcher: str, moment: float, whole: Path) -> Kill:
    """Kill a sweep so many seconds after its start, and start it again.

    Args:
        launcher: Of the sweep.
        moment: In seconds.
        whole: Where the same sweep ran undisturbed.
    """
    place = Path(tempfile.mkdtemp(prefix="sweep-kills-"))
    try:
        with (place / "err.txt").open("w") as err:
            env = {**os.environ, "SWEEP_KILLS": place.name}
            first = subprocess.Popen(
                command(launcher, place), cwd=ROOT, env=env, stdout=err, stderr=err, start_new_session=True
            )
            time.sleep(moment)
            first.kill()
            first.wait()
        begin = time.monotonic()
        while (left := carrying(place.name)) and time.monotonic() - begin < 5.0:
            time.sleep(0.05)
        patience = time.monotonic() - begin
        jobs = " ".join(_far(place / "sweep" / f"seed-{seed}") for seed in SEEDS)
        again = run(launcher, place)
        same = again.returncode == 0 and table(place) == table(whole)
        equal = again.returncode == 0 and not differences(networks(place), networks(whole))
        said = "" if again.returncode == 0 else again.stderr[-300:]
        return Kill(launcher, moment, jobs, len(left), patience, again.returncode, same, equal, said)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _far(folder: Path) -> str:
    """How far a job had come."""
    if not (folder / "status.json").exists():
        return "unborn"
    text = (folder / "status.json").read_text()
    return "done" if '"done"' in text else "saved" if list(folder.glob("checkpoints/*/manifest.json")) else "began"


def kills(number: int, seed: int, launcher: str, whole: Path) -> list[Kill]:
    """So many kills of one launcher's sweeps, at moments that the seed draws."""
    rng = random.Random(f"{launcher}:{seed}")
    rows = []
    for _ in range(number):
        rows.append(kill_at(launcher, rng.uniform(FIRST, LAST), whole))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="sweep_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each launcher's sweeps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launchers", default="joblib", help="joblib, submitit_local, basic")
    arguments = parser.parse_args()
    rows = []
    whole = Path(tempfile.mkdtemp(prefix="sweep-kills-whole-"))
    try:
        assert run("basic", whole).returncode == 0
        print(f"{'launcher':<16}{'moment':>6}  {'jobs by then':<24}{'orphans':<20}{'code':>4}  table, networks")
        for launcher in arguments.launchers.split(","):
            rows += kills(arguments.kills, arguments.seed, launcher, whole)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    survived = sum(row.survived for row in rows)
    print(f"{survived} of {len(rows)} survived")
    sys.exit(survived < len(rows))


if __name__ == "__main__":
    main()
