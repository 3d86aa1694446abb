"""What a CUDA device brings: `python -m benchmarks.cuda`, or `make cuda`, which tests first.

Every recipe trains for some seconds on the device and on the CPU of the same machine, each in a process of its own, and
DAAC on Procgen's coinrun for some minutes; then a batch is sent in several ways. Figures go into cuda.json and cuda.md.
It needs hsw with its core dependencies and a torch that sees the device; Procgen needs the extra envpool, SAC the extra
mujoco, and what is not installed is left out and said to be.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import load

HERE = Path(__file__).resolve().parent
ROWS = 6  # of the metrics, at least
ENDLESS = "num_train_steps=1000000000"
# Arguments of hsw.train, and the module without which the job is left out.
JOBS: dict[str, tuple[tuple[str, ...], str]] = {
    "ppo cartpole": (("agent=ppo", "env=cartpole"), "torch"),
    "ppo catch, 64 environments, 512-512": (
        ("agent=ppo", "env=catch", "env.num_envs=64", "network.hidden_sizes=[512,512]"),
        "torch",
    ),
    "daac cartpole": (("agent=daac", "storage=decoupled", "env=cartpole"), "torch"),
    "daac procgen coinrun": (("agent=daac", "env=procgen", "env.game=coinrun", "env.num_envs=64"), "envpool"),
    "sac halfcheetah": (("agent=sac", "env=halfcheetah"), "mujoco"),
    "her_sac bit_flipping": (("agent=her_sac", "env=bit_flipping"), "torch"),
    "impala catch": (("agent=impala", "env=catch"), "torch"),
    "impala procgen coinrun": (("agent=impala", "env=procgen", "env.game=coinrun"), "envpool"),
}


def train(arguments: tuple[str, ...], device: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Train for so many seconds of training, then stop as by Ctrl-C. Returns figures of the second half of it."""
    command = [sys.executable, "-m", "hsw.train", *arguments, f"device={device}", ENDLESS, f"hydra.run.dir={folder}"]
    more = ["quiet=true", "eval_interval=null", "checkpoint_interval=1000000000"]
    log = folder.parent / f"{folder.name}.log"
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with log.open("w") as out:
        process = subprocess.Popen([*command, *more], stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        rows = _watch(process, folder / "metrics.jsonl", seconds)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if len(rows) < 2:
        return {"error": log.read_text()[-2000:]}
    later = [row for row in rows if row["time"] >= rows[-1]["time"] / 2]
    first, last = (later if len(later) > 1 else rows)[0], rows[-1]
    found = {"value": (last["step"] - first["step"]) / (last["time"] - first["time"]), "steps": last["step"]}
    names = ("collecting_share", "learning_share", "learner_idle", "actors_idle")
    shares = {
        f"speed/{name}": _mean([row[f"speed/{name}"] for row in later if f"speed/{name}" in row]) for name in names
    }
    returns = [row["train/episode_return"] for row in rows if "train/episode_return" in row]
    return {**found, **{k: v for k, v in shares.items() if v is not None}, "return": returns[-1] if returns else None}


def _watch(process: subprocess.Popen[bytes], path: Path, seconds: float) -> list[dict[str, Any]]:
    end = time.monotonic() + 180 + 2 * seconds  # what starts on a busy machine takes its time
    rows: list[dict[str, Any]] = []
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.5)
        if path.exists():
            lines = path.read_text().splitlines()[:-1]  # the last may be under way
            rows = [row for line in lines if "step" in (row := json.loads(line))]
            if len(rows) >= ROWS and rows[-1]["time"] >= seconds:
                break
    return rows


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def transfers(device: str) -> dict[str, dict[str, float]]:
    """Microseconds to send a batch: field by field out of pageable memory, and packed by hsw.transfer."""
    import numpy as np
    import torch

    from hsw.transfer import to_device

    place = torch.device(device)
    floats = {name: np.ones((256, size), np.float32) for name, size in (("obs", 17), ("next_obs", 17), ("actions", 6))}
    flags = {name: np.ones(256, np.float32) for name in ("rewards", "discounts")}
    images = {name: np.ones((256, 3, 64, 64), np.uint8) for name in ("obs", "next_obs")}
    figures = {}
    for name, batch in (("a row of 8 observations", {"obs": np.ones((8, 4), np.float32)}),
                        ("256 transitions of floats", {**floats, **flags}),
                        ("256 transitions of images", {**images, **flags})):  # fmt: skip
        ways = {
            "field by field": lambda batch=batch: [torch.from_numpy(part).to(place) for part in batch.values()],
            "packed and pinned": lambda batch=batch: to_device(batch, place),
        }
        figures[name] = {way: _microseconds(send, torch) for way, send in ways.items()}
    return figures


def _microseconds(send: Any, torch: Any) -> float:
    for _ in range(20):
        send()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(200):
        send()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / 200 * 1e6


def table(results: dict[str, Any]) -> str:
    """The results as markdown."""
    where = results["machine"]
    lines = [
        "# CUDA",
        "",
        f"{where['device']}, torch {where['torch']}, {where['cores']} cores, Python {where['python']}, "
        f"{results['date']}; others used {results['load']} cores.",
        f"Environment steps per second over the second half of {results['seconds']:g} s of training, one run each; the",
        "ratio is that of the device to the CPU of the same machine. Made by `python -m benchmarks.cuda`.",
        "",
        "| job | device | CPU | ratio |",
        "|---|---|---|---|",
    ]
    for name, row in results["jobs"].items():
        shown = [f"{row[key]['value']:,.0f}" if "value" in row.get(key, {}) else "failed" for key in ("cuda", "cpu")]
        ratio = f"{row['cuda']['value'] / row['cpu']['value']:.2f}" if "failed" not in shown else "-"
        lines.append(f"| {name} | {' | '.join(shown)} | {ratio} |")
    lines += [f"| {name} | not measured: {why} | | |" for name, why in results["left_out"].items()]
    if "coinrun" in results:
        run = results["coinrun"]
        told = f"{run['steps']:,} steps, {run['value']:,.0f} a second, return of the last 100 episodes {run['return']}"
        told = run.get("error") or told
        lines += ["", f"DAAC on coinrun for {results['coinrun_minutes']:g} minutes on the device: {told}."]
    lines += ["", "| a batch, µs | field by field | packed and pinned |", "|---|---|---|"]
    for name, ways in results["transfers"].items():
        lines.append(f"| {name} | {' | '.join(f'{value:.0f}' for value in ways.values())} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a CUDA device brings.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=10.0, help="of training, for each recipe and device")
    parser.add_argument("--coinrun-minutes", type=float, default=3.0, help="of DAAC on coinrun; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=HERE / "cuda.json")
    load.add_option(parser)
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device, and nothing is measured")
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cores": os.cpu_count()}
    results: dict[str, Any] = {
        "machine": {**machine, "python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
        "seconds": args.seconds,
        "jobs": {},
        "left_out": {},
    }
    with tempfile.TemporaryDirectory(prefix="hsw-cuda-") as folder, load.Besides() as besides:
        results["transfers"] = transfers(args.device)
        for number, (name, (arguments, needs)) in enumerate(JOBS.items()):
            if importlib.util.find_spec(needs) is None:
                results["left_out"][name] = f"{needs} is not installed"
                continue
            row = results["jobs"][name] = {}
            for key, device in (("cuda", args.device), ("cpu", "cpu")):
                row[key] = train(arguments, device, args.seconds, Path(folder) / f"{number}-{key}")
                print(f"{name} {key}: {row[key].get('value', row[key].get('error'))}", file=sys.stderr)
        if args.coinrun_minutes and importlib.util.find_spec("envpool"):
            arguments, _ = JOBS["daac procgen coinrun"]
            results["coinrun_minutes"] = args.coinrun_minutes
            results["coinrun"] = train(arguments, args.device, 60 * args.coinrun_minutes, Path(folder) / "coinrun")
    results["load"] = besides.load
    if not load.publishable("cuda", [besides.load], args.loaded):
        raise SystemExit(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
