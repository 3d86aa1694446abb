"""Long runs whose memory, descriptors, threads and shared memory stay flat: python -m tests.faults.soak [--steps 1e6].

Each family trains once, by the command itself, on a small environment, with evaluations and checkpoints; meanwhile its
processes are looked at together, the guardian and the actors among them. All samples are kept in soak.csv, drawn in
soak.png, and judged in soak.md.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hsw.run.provenance import machine
from tests.faults.campaign.checks import Broken, hold, shared_memory_of
from tests.faults.campaign.server import adopting, descendants
from tests.runs import ROOT

# A replay is full, and all of its memory in use, after a twentieth of the steps.
FULL = ("storage.storage_size={tenth}", "agent.updates_per_step=0.02", "env.num_envs=8")
SMALL = ("network.hidden_sizes=[32,32]", "storage.batch_size=64")
FAMILIES = {
    "ppo": ("agent=ppo", "env=cartpole"),
    "daac": ("agent=daac", "env=cartpole"),
    "impala": ("agent=impala", "env=catch"),
    "sac": ("agent=sac", "env=pendulum", *FULL, *SMALL),
    "her_sac": ("agent=her_sac", "env=bit_flipping", *FULL, *SMALL),
}
COMMON = ("quiet=true", "device=cpu", "threads=1", "eval_episodes=5")
WARM_UP = 0.2  # of the samples, after which everything is to be flat
SAMPLES = 200  # of a run at most; the time between them doubles when there are more


class Sample(NamedTuple):
    """All processes of a run at one moment; memory in MB, that of shared memory as mapped, each page counted once;
    segments are files of shared memory that are called after them."""

    seconds: float
    step: int
    processes: int
    rss: float
    pss: float
    descriptors: int
    threads: int
    shared: float
    segments: int


# What may be more at the end than after the warm-up, by the straight line through the samples: so much, or that part.
SLACK = {"rss": (12.0, 0.04), "pss": (12.0, 0.04), "descriptors": (2.0, 0.0), "threads": (1.0, 0.0)}
SLACK |= {"shared": (1.0, 0.0), "segments": (1.0, 0.0)}


def look(pids: Sequence[int], seconds: float = 0.0, step: int = 0) -> Sample:
    """What processes have; one that is gone meanwhile has nothing."""
    rss = pss = shared = 0.0
    processes = descriptors = threads = segments = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            rolled = dict(_fields(Path(f"/proc/{pid}/smaps_rollup")))
            status = dict(_fields(Path(f"/proc/{pid}/status")))
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            rss, pss = rss + int(rolled["Rss"]) / 1024, pss + int(rolled["Pss"]) / 1024
            shared += int(rolled.get("Pss_Shmem", 0)) / 1024
            threads += int(status["Threads"])
            processes += 1
        segments += len(shared_memory_of(pid))
    figures = round(rss, 2), round(pss, 2), descriptors, threads, round(shared, 3), segments
    return Sample(round(seconds, 2), step, processes, *figures)


def _fields(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if value:
            yield name, (value.split() or [""])[0]


def growth(samples: Sequence[Sample], name: str) -> float:
    """By how much a figure grew from the warm-up to the end, by the least-squares line through its samples."""
    kept = settled(samples)
    values = np.array([getattr(sample, name) for sample in kept], float)
    steps = np.array([sample.step for sample in kept], float)
    if len(kept) < 3 or np.ptp(steps) == 0:
        return 0.0
    slope, _ = np.polyfit(steps - steps[0], values, 1)
    return float(slope * np.ptp(steps))


def settled(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those after the warm-up, while the run trained: it ends its processes in its last moments."""
    last = max(sample.step for sample in samples)
    return [sample for sample in samples if WARM_UP * last <= sample.step < last]


def leaks(samples: Sequence[Sample]) -> list[str]:
    """What is not flat, in words."""
    told = []
    for name, (least, part) in SLACK.items():
        mean = statistics.fmean(getattr(sample, name) for sample in settled(samples))
        if growth(samples, name) > max(least, part * mean):
            told.append(f"{name} grew by {growth(samples, name):.1f} to about {mean:.1f}")
    return told


def command_of(family: str, steps: int) -> tuple[str, ...]:
    """The arguments of a family's run."""
    intervals = (f"num_train_steps={steps}", f"checkpoint_interval={steps // 20}", f"eval_interval={steps // 20}")
    return (*(word.format(tenth=steps // 20) for word in FAMILIES[family]), *COMMON, *intervals)


def soak(family: str, steps: int, folder: Path) -> list[Sample]:
    """Train, and look.

    Raises:
        Broken: If the run does not end with code 0.
    """
    command = [sys.executable, "-m", "hsw.train", *command_of(family, steps), f"hydra.run.dir={folder}"]
    begin, pause, samples = time.monotonic(), 0.25, list[Sample]()
    with (folder.with_suffix(".txt")).open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True)
        try:
            while process.poll() is None:
                step = last_step(folder / "metrics.jsonl")
                if step:
                    pids = [process.pid, *descendants(process.pid)]
                    samples.append(look(pids, time.monotonic() - begin, step))
                if len(samples) > SAMPLES:
                    samples, pause = samples[::2], 2 * pause
                time.sleep(pause)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    hold(process.returncode == 0, f"{family}: code {process.returncode}: {folder.with_suffix('.txt').read_text()}")
    hold(len(samples) >= 5, f"{family}: {len(samples)} samples are too few; take more steps")
    return samples


def last_step(path: Path) -> int:
    """The step of the last whole row of metrics; 0 if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    whole = [line for line in lines[-2:] if line.endswith(b"\n")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def write(out: Path, soaked: dict[str, list[Sample]], steps: int, command: str) -> None:
    """soak.csv, soak.png and soak.md."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "soak.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["family", *Sample._fields])
        writer.writerows([family, *sample] for family, samples in soaked.items() for sample in samples)
    draw(out / "soak.png", soaked)
    names = list(SLACK)
    lines = [
        f"# A soak of {steps:,} steps for each family",
        "",
        "What all processes of a run have together: the mean after the first fifth of the steps and, by the straight",
        "line through the samples, how much more it is at the end. Memory in MB.",
        "",
        f"| family | {' | '.join(names)} | verdict |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    for family, samples in soaked.items():
        means = [statistics.fmean(getattr(sample, name) for sample in settled(samples)) for name in names]
        cells = [f"{mean:.1f} {growth(samples, name):+.2f}" for mean, name in zip(means, names, strict=True)]
        lines.append(f"| {family} | {' | '.join(cells)} | {'; '.join(leaks(samples)) or 'flat'} |")
    runs = [f"    python -m hsw.train {shlex.join(command_of(family, steps))}" for family in soaked]
    told = ", ".join(f"{name} {value}" for name, value in machine().items())
    lines += [
        "",
        "![over steps](soak.png)",
        "",
        f"`{command}`, one run after another, seed 1, which trains:",
        "",
        *runs,
    ]
    lines += ["", f"Machine: {told}.", ""]
    (out / "soak.md").write_text("\n".join(lines))


def draw(path: Path, soaked: dict[str, list[Sample]]) -> None:
    """A panel for each figure, a line for each family."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {"pss": "memory (PSS, MB)", "rss": "memory (RSS, MB)", "descriptors": "open descriptors"}
    titles |= {"threads": "threads", "processes": "processes", "shared": "shared memory (MB)"}
    figure, panels = pyplot.subplots(2, 3, figsize=(12, 6), sharex=True, layout="constrained")
    for panel, (name, title) in zip(panels.flat, titles.items(), strict=True):
        for family, samples in soaked.items():
            panel.plot([s.step for s in samples], [getattr(s, name) for s in samples], label=family, linewidth=1)
        panel.set_title(title)
        panel.set_ylim(bottom=0)
    for panel in panels[-1]:
        panel.set_xlabel("steps")
    panels[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--steps", type=float, default=1e6, help="of each family (1e6)")
    parser.add_argument("--only", default=",".join(FAMILIES), help="some families")
    parser.add_argument("--out", type=Path, default=Path("experiments/soak"), help="folder of what is written")
    arguments = parser.parse_args()
    soaked: dict[str, list[Sample]] = {}
    broken = []
    for family in arguments.only.split(","):
        with tempfile.TemporaryDirectory(prefix="soak-") as place, adopting():
            try:
                soaked[family] = soak(family, int(arguments.steps), Path(place) / "run")
                broken += [f"{family}: {leak}" for leak in leaks(soaked[family])]
            except Broken as error:
                broken.append(str(error))
    if soaked:
        write(
            arguments.out,
            soaked,
            int(arguments.steps),
            shlex.join(["python", "-m", "tests.faults.soak", *sys.argv[1:]]),
        )
        print((arguments.out / "soak.md").read_text())
    print("\n".join(broken) or "everything is flat")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
