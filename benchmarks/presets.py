"""Whether presets still learn what they did: `python -m benchmarks.presets --hours 6`, or `make results HOURS=6`.

Each preset is trained on seeds that none was chosen on, the shortest first, as long as the budget of hours lasts. Its
scores are held against the last release's, which released.json keeps, and it has regressed where the 95 % interval of
the difference of means lies below -5 % of the released mean: then the command ends with 1. What was trained is in
presets.json, and as a table in presets.md; --release makes it the release's.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.results import HERE, ROOT, score_of, train_run

SEEDS = range(1001, 1006)  # no preset, study or test uses them
WORST = -0.05  # of the released mean
Decision = Literal["ok", "better", "regressed", "new", "too few"]


@dataclass(frozen=True)
class Verdict:
    """What a preset's scores say beside those of the release.

    Attributes:
        decision: In a word.
        difference, low, high: Of the means and its 95 % interval, as parts of the released mean; None where there is
            none.
    """

    decision: Decision
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def judge(released: Sequence[float], now: Sequence[float]) -> Verdict:
    """Whether scores have fallen; the interval is Welch's, and of scores that do not vary a point.

    Args:
        released: The last release's, one for each seed.
        now: Of other seeds.
    """
    if not released:
        return Verdict("new")
    if min(len(released), len(now)) < 2:
        return Verdict("too few")
    scale = abs(statistics.mean(released)) or 1.0
    difference = statistics.mean(now) - statistics.mean(released)
    parts = [statistics.variance(side) / len(side) for side in (released, now)]
    error, half = math.sqrt(sum(parts)), 0.0
    if error > 0:
        from scipy.stats import t

        counts = len(released) - 1, len(now) - 1
        freedom = sum(parts) ** 2 / sum(part**2 / count for part, count in zip(parts, counts, strict=True))
        half = float(t.ppf(0.975, freedom)) * error
    low, high = (difference - half) / scale, (difference + half) / scale
    decision: Decision = "regressed" if high < WORST else "better" if low > 0 else "ok"
    return Verdict(decision, difference / scale, low, high)


def comparable(released: dict[str, Any] | None, row: dict[str, Any]) -> list[float]:
    """The released scores of a preset; none where it was trained for another number of steps, or judged by another
    figure."""
    if released is None or released["figure"] != row["figure"] or abs(released["steps"] / row["steps"] - 1) > 0.1:
        return []
    scores: list[float] = released["scores"]
    return scores


@dataclass(frozen=True)
class Preset:
    """A preset, the arguments of hsw.train that take it, and how long a seed will take, in seconds."""

    name: str
    overrides: tuple[str, ...]
    figure: str
    seconds: float


def presets(released: dict[str, Any], conf: Path = ROOT / "conf") -> list[Preset]:
    """Every preset of conf/, the shortest first; how long one takes the release tells, or its number of steps."""
    agents = [path.stem for path in (conf / "agent").glob("*.yaml")]
    envs = [path.stem for path in (conf / "env").glob("*.yaml")]
    found = []
    for path in sorted((conf / "preset").glob("*.yaml")):
        agent = max((agent for agent in agents if path.stem.startswith(f"{agent}_")), key=len)
        rest = path.stem.removeprefix(f"{agent}_")
        env = max((env for env in envs if f"{rest}_".startswith(f"{env}_")), key=len)
        overrides = (f"agent={agent}", f"env={env}", *[f"preset={path.stem}"] * (rest != env))
        known = released.get(path.stem, {})
        steps = (yaml.safe_load(path.read_text()) or {}).get("num_train_steps") or 25_000_000
        rate = 100 if agent in ("sac", "her_sac", "td3") else 1000  # steps a second, at worst
        figure = "success" if env.startswith(("bit_flipping", "fetch")) else "return"
        found.append(Preset(path.stem, overrides, figure, known.get("seconds", steps / rate)))
    return sorted(found, key=lambda preset: (preset.seconds, preset.name))


def within(
    budget: float,
    found: Iterable[Preset],
    seeds: Sequence[int],
    parallel: int,
    train: Callable[[Preset, int], tuple[float, int]],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[dict[str, Any], list[str]]:
    """Train presets one after the other, as long as a budget of seconds lasts.

    Args:
        budget: In seconds; no preset begins that would not end within it, by what is known of it.
        found: The shortest first.
        seeds: Of each.
        parallel: Runs at a time.
        train: (preset, seed) to its score and steps.
        clock: In seconds.

    Returns:
        A row for each that was trained, and the names of those that were not.
    """
    rows, left_out, begun = {}, [], clock()
    with ThreadPoolExecutor(parallel) as pool:
        for preset in found:
            rounds = -(-len(seeds) // parallel)
            if clock() - begun + rounds * preset.seconds > budget:
                left_out.append(preset.name)
                continue
            started = clock()
            told = list(pool.map(lambda seed, preset=preset: train(preset, seed), seeds))
            rows[preset.name] = {
                "command": " ".join(["python -m hsw.train", *preset.overrides]),
                "seeds": list(seeds),
                "figure": preset.figure,
                "scores": [score for score, _ in told],
                "steps": max(steps for _, steps in told),
                "seconds": (clock() - started) / rounds,
            }
    return rows, left_out


def table(rows: dict[str, Any], verdicts: dict[str, Verdict], left_out: list[str], version: str) -> str:
    """The rows as Markdown."""
    lines = [
        "# Presets beside the last release",
        "",
        f"The last evaluations of runs on held-out seeds, mean, beside those of {version or 'no release yet'}; the",
        "difference is of the means, as a part of the released one, with its 95 % interval. Made by `make results`.",
        "",
        "| preset | seeds | score | difference | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        verdict = verdicts[name]
        shown = (
            "-"
            if verdict.difference is None
            else f"{verdict.difference:+.1%} ({verdict.low:+.1%} to {verdict.high:+.1%})"
        )
        mean = statistics.mean(row["scores"])
        lines.append(f"| {name} | {len(row['seeds'])} | {row['figure']} {mean:.4g} | {shown} | {verdict.decision} |")
    if left_out:
        lines += ["", f"Not within the budget: {', '.join(left_out)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.presets", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=6.0, help="of wall time, for all")
    parser.add_argument("--seeds", type=int, default=3, help=f"how many, of {SEEDS[0]} to {SEEDS[-1]}")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", nargs="*", default=[], help="names of presets")
    parser.add_argument("--extra", nargs="*", default=[], help="further overrides, such as num_train_steps=2000")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "presets", help="where the runs go")
    parser.add_argument("--released", type=Path, default=HERE / "released.json", help="the last release's scores")
    parser.add_argument("--out", type=Path, default=HERE / "presets.json")
    parser.add_argument("--release", metavar="VERSION", help="make what is trained now that version's scores")
    args = parser.parse_args()
    released = json.loads(args.released.read_text()) if args.released.is_file() else {"version": "", "scores": {}}
    found = presets(released["scores"])
    if unknown := set(args.only) - {preset.name for preset in found}:
        parser.error(f"there is no preset {', '.join(sorted(unknown))}")
    found = [preset for preset in found if not args.only or preset.name in args.only]

    def train(preset: Preset, seed: int) -> tuple[float, int]:
        folder = args.runs.resolve() / preset.name / f"seed-{seed}"
        rows = train_run((*preset.overrides, *args.extra), seed, folder)
        return score_of(preset.figure, rows), int(rows[-1]["step"])

    rows, left_out = within(3600 * args.hours, found, list(SEEDS)[: args.seeds], args.parallel, train)
    known = released["scores"]
    verdicts = {name: judge(comparable(known.get(name), row), row["scores"]) for name, row in rows.items()}
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    shown = table(rows, verdicts, left_out, released["version"])
    args.out.with_suffix(".md").write_text(shown)
    print(shown)
    if args.release:
        told = {"version": args.release, "scores": {**known, **rows}}
        args.released.write_text(json.dumps(told, indent=1) + "\n")
    regressed = [name for name, verdict in verdicts.items() if verdict.decision == "regressed"]
    if regressed:
        raise SystemExit(f"regressed since {released['version']}: {', '.join(regressed)}")


if __name__ == "__main__":
    main()
