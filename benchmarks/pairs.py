"""Hold two checkouts against each other: `python -m benchmarks.pairs <another checkout> [--pairs 5]`.

Both train the same commands by turns with this interpreter, one torch thread each. Printed are medians of each side and
of the ratio of a pair, the other's time to this one's: above 1, this checkout is faster.
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

HERE = Path(__file__).resolve().parent.parent
COMMON = ("quiet=true", "device=cpu", "threads=1", "seed=1")
WORK = {
    "start to the end of 64 steps": ("agent=ppo", "env=cartpole", "num_train_steps=64", "eval_episodes=1"),
    "PPO CartPole, 200,000 steps": ("agent=ppo", "env=cartpole", "num_train_steps=200_000"),
    "DAAC CartPole, 60,000 steps": ("agent=daac", "env=cartpole", "num_train_steps=60_000"),
    "SAC Pendulum, 2,000 steps": ("agent=sac", "env=pendulum", "num_train_steps=2_000"),
    "IMPALA Catch, 200,000 steps": ("agent=impala", "env=catch", "num_train_steps=200_000"),
}


def seconds(checkout: Path, overrides: tuple[str, ...]) -> float:
    """How long a run takes in a checkout, from the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hsw.train", *COMMON, *overrides, f"hydra.run.dir={folder}/run"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
        begin = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, env=env, capture_output=True)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.pairs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, help="another checkout of hsw: git worktree add <folder> <commit>")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="those whose name has this in it")
    arguments = parser.parse_args()
    print(f"| work | {arguments.other.name}, s | here, s | ratio of a pair | load |\n|---|---|---|---|---|")
    for name, overrides in WORK.items():
        if arguments.only not in name:
            continue
        pairs = [
            (seconds(arguments.other.absolute(), overrides), seconds(HERE, overrides)) for _ in range(arguments.pairs)
        ]
        other, here = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(before / after for before, after in pairs)
        spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"| {name} | {other:.2f} | {here:.2f} | {spread} | {os.getloadavg()[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
