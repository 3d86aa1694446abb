"""A plan of a study: for each comparison of a report, the seeds that it needs and what they cost."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hsw.analysis.comparison import pairs_of, scores_of
from hsw.analysis.figures import number
from hsw.analysis.groups import Group
from hsw.analysis.power import Power, least_seeds, simulate
from hsw.analysis.results import RunResult
from hsw.analysis.score_ranges import Ranges
from hsw.errors import ConfigError


@dataclass
class Asked:
    """What is planned for.

    Attributes:
        metric: "return" or "success".
        difference, relative: Between means, in the scores' unit, or as a share of the lower mean.
        power: Share of studies that are to show it.
        alpha: One minus the level of the report's intervals.
        most: Seeds of a group.
        jobs: Runs at a time.
        reps, seed: Simulated studies, and the seed of their draws.
    """

    metric: str
    difference: float
    relative: bool
    power: float
    alpha: float
    most: int
    jobs: int
    reps: int
    seed: int


@dataclass
class Cost:
    """New runs, beside those of the pilot, and their time in seconds one after another, and so many at a time; None
    where the pilot does not tell how long its runs took."""

    runs: int
    seconds: float | None
    elapsed: float | None


@dataclass
class Comparison:
    """Two groups.

    Attributes:
        group, over: The one that is to be better, as in the pilot, and the other, by their labels.
        pilots: How many seeds of each counted.
        means, deviations: Of their scores, over tasks.
        difference: Planned for.
        seeds: That each needs; None if the most are not enough.
        cost: Of these seeds, or of the most.
        powers: Of some numbers of seeds, the needed one among them.
    """

    group: str
    over: str
    pilots: list[int]
    means: list[float]
    deviations: list[float]
    difference: float
    seeds: int | None
    cost: Cost
    powers: list[Power]


@dataclass
class PlanTable:
    """Comparisons on some environments, how many runs on them do not count, and what all comparisons cost together."""

    envs: list[str]
    ranges: dict[str, list[float]]
    not_counted: int
    comparisons: list[Comparison]
    cost: Cost


@dataclass
class StudyPlan:
    """Of one study."""

    folder: str
    tables: list[PlanTable]


@dataclass
class Plan:
    """All of it."""

    asked: Asked
    studies: list[StudyPlan]
    command: str | None = None  # that made it


def plan_table(all_groups: Sequence[Group], envs: Sequence[str], ranges: Ranges, asked: Asked) -> PlanTable:
    """Plan the comparisons that a report has on some environments; of a single group, one with its like.

    Args:
        all_groups: The study's; those that have no run on these environments are left out.
        envs: The tasks.
        ranges: Scores that become 0 and 1; of all of the tasks or of none.
        asked: What is planned for.

    Raises:
        ConfigError: If the pilot does not show how the scores scatter, or the difference cannot be.
    """
    groups = [group for group in all_groups if any(env in [*group.counted, *group.left_out] for env in envs)]
    where = ", ".join(envs)
    scores = [scores_of(group, envs, ranges) for group in groups]
    for group, some in zip(groups, scores, strict=True):
        if len(some) < 2:
            raise ConfigError(
                f"{group.label} has {'one seed' if len(some) else 'no seed'} that counts on {where}, which does not "
                "show how seeds scatter; run it with more seeds first, three or more, or leave its folders out"
            )
    pairs = pairs_of(range(len(groups))) or [(0, 0)] * len(groups)
    comparisons, needed = [], [0] * len(groups)
    for pair in pairs:
        x, y = sorted(pair, key=lambda one: float(scores[one].mean()), reverse=True)
        pilots = [scores[x]] if x == y else [scores[x], scores[y]]
        flat = [env for n, env in enumerate(envs) if not any(np.ptp(pilot[:, n]) for pilot in pilots)]
        if flat:
            labels = " and ".join(dict.fromkeys(groups[one].label for one in (x, y)))
            raise ConfigError(
                f"every run of {labels} scored the same on {', '.join(flat)}, which does not show how seeds scatter"
            )
        difference = _difference(float(scores[y].mean()), groups[y].label, asked, bool(ranges))
        powers, seeds = _powers(pilots, difference, min(map(len, pilots)), asked)
        for one in (x, y):
            needed[one] = max(needed[one], seeds or asked.most)
        of_pair = [(groups[x], seeds or asked.most), (groups[y], seeds or asked.most)]
        comparisons.append(
            Comparison(
                group=groups[x].label if x != y else "another group",
                over=groups[y].label,
                pilots=[len(scores[x]), len(scores[y])] if x != y else [0, len(scores[y])],
                means=[float(scores[one].mean()) for one in (x, y)],
                deviations=[float(np.sqrt(scores[one].var(0, ddof=1).mean())) for one in (x, y)],
                difference=difference,
                seeds=seeds,
                cost=_cost(of_pair, envs, asked.jobs, x == y),
                powers=powers,
            )
        )
    whole = comparisons[0].cost if len(pairs) == 1 else _cost(list(zip(groups, needed, strict=True)), envs, asked.jobs)
    left_out = sum(len(group.left_out.get(env, ())) for group in groups for env in envs)
    return PlanTable(list(envs), {env: list(ends) for env, ends in ranges.items()}, left_out, comparisons, whole)


def _difference(mean: float, label: str, asked: Asked, normalised: bool) -> float:
    difference = asked.difference
    if asked.relative:
        if mean == 0:
            raise ConfigError(f"the mean of {label} is 0, of which no share is a difference; give a number without %")
        difference *= abs(mean)
    if asked.metric == "success" and not normalised and mean + difference > 1 + 1e-9:
        raise ConfigError(
            f"{label} succeeds in {number(mean)} of its episodes, and no run in {number(mean + difference)}; "
            f"a difference of at most {number(1 - mean)} can be planned for"
        )
    return difference


def _powers(pilots: Sequence[np.ndarray], difference: float, had: int, asked: Asked) -> tuple[list[Power], int | None]:
    """What some numbers of seeds come to, and the one that is enough."""

    @cache
    def simulated(seeds: int) -> Power:
        return simulate(pilots, difference, seeds, asked.alpha, asked.reps, asked.seed)

    seeds = least_seeds(simulated, asked.power, asked.alpha, asked.most)
    some = (
        {asked.most // 2, asked.most} if seeds is None else {seeds // 2, seeds - 1, seeds, min(2 * seeds, asked.most)}
    )
    return [simulated(one) for one in sorted(some | {min(had, asked.most)}) if one > 1], seeds


def _cost(of: Sequence[tuple[Group, int]], envs: Sequence[str], jobs: int, alike: bool = False) -> Cost:
    """Of bringing groups to so many seeds; where two are `alike`, the first has no runs yet."""
    durations: list[float | None] = []
    for n, (group, seeds) in enumerate(of):
        had = 0 if alike and n == 0 else len(group.seeds(envs))
        for env in envs:
            durations += [_duration(list(group.counted[env].values()))] * max(0, seeds - had)
    known = [duration for duration in durations if duration is not None]
    if len(known) < len(durations):
        return Cost(len(durations), None, None)
    free = [0.0] * jobs  # when each place is free again
    for duration in sorted(known, reverse=True):
        heapq.heapreplace(free, free[0] + duration)
    return Cost(len(durations), math.fsum(known), max(free))


def _duration(runs: Sequence[RunResult]) -> float | None:
    """Seconds that the median run took; of one whose rows have no times, by its speed."""
    known = [
        run.seconds or ((run.budget or 0) / run.speed if run.speed else None)
        for run in runs
        if run.seconds or run.speed
    ]
    return statistics.median(seconds for seconds in known if seconds is not None) if known else None
