"""Hold two checkouts against each other: `python -m benchmarks.pairs <another checkout> [--pairs 5]`.

Both train the same commands by turns with this interpreter, one torch thread each. Printed are medians of each side and
of the ratio of a pair, the other's time to this one's: above 1, this checkout is faster. With --cpu it is their CPU
time, user and system, children included, which a busy machine blurs less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import load

HERE = Path(__file__).resolve().parent.parent
COMMON = ("quiet=true", "device=cpu", "threads=1", "seed=1")
WORK = {
    "start to the end of 64 steps": ("agent=ppo", "env=cartpole", "num_train_steps=64", "eval_episodes=1"),
    "PPO CartPole, 200,000 steps": ("agent=ppo", "env=cartpole", "num_train_steps=200_000"),
    "DAAC CartPole, 60,000 steps": ("agent=daac", "env=cartpole", "num_train_steps=60_000"),
    "SAC Pendulum, 2,000 steps": ("agent=sac", "env=pendulum", "num_train_steps=2_000"),
    "IMPALA Catch, 200,000 steps": ("agent=impala", "env=catch", "num_train_steps=200_000"),
}


def seconds(checkout: Path, overrides: tuple[str, ...], cpu: bool = False) -> float:
    """How long a run takes in a checkout, from the command to its end; or how much CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hsw.train", *COMMON, *overrides, f"hydra.run.dir={folder}/run"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
        clock = (lambda: sum(os.times()[2:4])) if cpu else time.perf_counter  # those of ended children
        begin = clock()
        subprocess.run(command, check=True, cwd=folder, env=env, capture_output=True)
        return clock() - begin


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.pairs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, help="another checkout of hsw: git worktree add <folder> <commit>")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall time")
    load.add_option(parser)
    arguments = parser.parse_args()
    print(f"| work | {arguments.other.name}, s | here, s | ratio of a pair | load |\n|---|---|---|---|---|")
    for name, overrides in WORK.items():
        if arguments.only not in name:
            continue
        sides = arguments.other.absolute(), HERE
        with load.Besides() as besides:
            pairs = [tuple(seconds(side, overrides, arguments.cpu) for side in sides) for _ in range(arguments.pairs)]
        if not arguments.cpu and not load.publishable(name, [besides.load], arguments.loaded):
            continue
        other, here = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(before / after for before, after in pairs)
        spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"| {name} | {other:.2f} | {here:.2f} | {spread} | {besides.load:.1f} |", flush=True)


if __name__ == "__main__":
    main()
