"""The plan: promised power against studies of a known effect, the report's own interval, costs, and refusals."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsw import plan
from hsw.analysis.estimates import probability_of_improvement
from hsw.analysis.power import Power, _draw, _shrunk, _spreads, detections, least_seeds, simulate
from tests.runs import Result, call
from tests.test_report import leave_run

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
ALPHA = 0.05

# Of mean 0 and standard deviation 1.
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: 1 - rng.gamma(2, 1 / math.sqrt(2), shape) + math.sqrt(2) - 1,
    "failures": lambda rng, shape: (
        (np.where(rng.random(shape) < 0.2, -2.0, 0.5) + 0.4 * rng.standard_normal(shape)) / math.sqrt(1.16)
    ),
}


def planned(*arguments: object) -> Result:
    return call(*map(str, arguments), main=plan.cli)


def told(*arguments: object) -> Any:
    result = planned(*arguments, "--format", "json", "--reps", 100)
    assert result.code == 0, result.err
    return json.loads(result.out)


def pilot(folder: Path, scores: list[float], **changes: Any) -> Path:
    for seed, score in enumerate(scores, 1):
        leave_run(folder / f"{changes.get('algorithm', 'PPO')}-{changes.get('env', '')}-{seed}", seed, score, **changes)
    return folder


# The power.


def promised_and_kept(
    draw: Draw, size: float, runs: int, tasks: int, pilots: int, studies: int, reps: int
) -> tuple[float, float]:
    """The mean power that plans promise, each from a pilot of its own, and the share of studies that kept it.

    Args:
        draw: Scores about their mean.
        size: Of the effect, in standard deviations.
        runs, tasks: Of a pilot.
        pilots: How many.
        studies: In all, of as many seeds as the plans ask for.
        reps: Simulated studies of a plan.
    """
    rng = np.random.default_rng(11)
    promises, seeds = [], Counter[int]()
    for number in range(pilots):
        scores = draw(rng, (runs, tasks))
        powers: dict[int, Power] = {}

        def simulated(n: int, scores: np.ndarray = scores, seed: int = number, powers: Any = powers) -> Power:
            powers[n] = simulate([scores], size, n, ALPHA, reps, seed)
            return powers[n]

        n = least_seeds(simulated, 0.8, ALPHA, 40) or 40
        promises.append(powers[n].power)
        seeds[n] += studies // pilots
    found = 0
    for n, some in seeds.items():
        x, y = draw(rng, (2, some, n, tasks))
        found += int(detections(x + size, y, ALPHA, rng)[0].sum())
    return float(np.mean(promises)), found / seeds.total()


def test_a_known_effect_is_found_as_often_as_the_plan_promised() -> None:
    promised, kept = promised_and_kept(SHAPES["normal"], 1.2, runs=20, tasks=1, pilots=16, studies=2000, reps=120)
    assert promised > 0.78
    assert abs(kept - promised) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "tasks", "size"), [(5, 1, 1.2), (10, 1, 1.2), (5, 3, 0.8)])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_two_thousand_studies_the_promised_power_holds(shape: str, runs: int, tasks: int, size: float) -> None:
    promised, kept = promised_and_kept(SHAPES[shape], size, runs, tasks, pilots=100, studies=2000, reps=300)
    print(f"{shape}, {runs} seeds of {tasks} tasks: promised {promised:.3f}, kept {kept:.3f}")
    assert abs(kept - promised) < 0.05


@pytest.mark.parametrize(("runs", "tasks"), [((5, 5), 1), ((8, 4), 3)])
def test_a_simulated_study_shows_what_its_report_would(runs: tuple[int, int], tasks: int) -> None:
    rng = np.random.default_rng(2)
    x = np.round(rng.standard_normal((40, runs[0], tasks)) + 0.9, 1)  # with ties
    y = np.round(rng.standard_normal((40, runs[1], tasks)), 1)
    above, below = detections(x, y, ALPHA, rng)
    intervals = [probability_of_improvement(*pair, reps=500) for pair in zip(x, y, strict=True)]
    assert 8 <= above.sum() <= 36
    assert np.sum(above != [one.low is not None and one.low > 0.5 for one in intervals]) <= 2  # resamples differ
    assert np.sum(below != [one.high is not None and one.high < 0.5 for one in intervals]) <= 2


def test_without_a_difference_power_is_the_share_of_false_alarms_on_one_side() -> None:
    found = simulate([np.random.default_rng(0).standard_normal((30, 1))], 0.0, 20, ALPHA, 2000, 0)
    assert found.false_alarms == pytest.approx(ALPHA, abs=0.02)
    assert found.power == pytest.approx(found.false_alarms / 2, abs=0.015)


def test_two_seeds_show_a_difference_that_is_not_there_in_every_third_study() -> None:
    x, y = np.random.default_rng(4).standard_normal((2, 2000, 2, 1))
    above, below = detections(x, y, ALPHA, np.random.default_rng(5))
    assert (above | below).mean() == pytest.approx(1 / 3, abs=0.03)  # both of one group above both of the other


def test_tasks_that_scatter_alike_are_taken_to_and_others_are_not() -> None:
    alike, degrees = _shrunk(np.array([3.9, 4.0, 4.1]), 4.0)
    assert np.ptp(alike) < 0.01
    assert degrees == 12
    variances = np.array([1e-4, 1.0, 1e4])
    apart, degrees = _shrunk(variances, 4.0)
    assert apart == pytest.approx(variances, rel=0.5)
    assert 4 <= degrees < 5


def test_of_three_seeds_the_spread_is_twice_as_wide_in_more_than_a_fifth_of_studies() -> None:
    pilot = np.array([[-1.0], [0.0], [1.0]])
    spreads = _spreads(np.random.default_rng(6), pilot, 20_000)
    assert (spreads > 2).mean() == pytest.approx(1 - math.exp(-1 / 4), abs=0.01)  # chi-squared with 2 degrees: < 1/2


@pytest.mark.parametrize("runs", [2, 3, 12])
def test_simulated_scores_have_the_pilots_mean_of_none_and_its_unbiased_variance(runs: int) -> None:
    rng = np.random.default_rng(7)
    pilot = 100 + rng.standard_normal((runs, 2)) * [1, 30]
    drawn = _draw(rng, pilot, np.ones((20_000, 1, 2)), 5)
    assert drawn.shape == (20_000, 5, 2)
    assert drawn.mean((0, 1)) == pytest.approx([0, 0], abs=0.02 * pilot.std(0, ddof=1).max())
    assert drawn.var((0, 1)) == pytest.approx(pilot.var(0, ddof=1), rel=0.03)


def test_a_pilot_of_fewer_seeds_asks_for_more() -> None:
    scores = np.array([[-1.0], [0.0], [1.0]])
    few, many = (
        simulate([some * 1.2 / some.std(ddof=1)], 1.5, 10, ALPHA, 1000, 0).power
        for some in (scores, np.tile(scores, (10, 1)))
    )
    assert few < many - 0.05


@pytest.mark.parametrize("needed", [1, 4, 5, 9, 37, 50])
def test_the_least_number_of_seeds_is_found(needed: int) -> None:
    assert least_seeds(lambda n: Power(n, float(n >= needed), 0.0), 0.8, ALPHA, 50) == max(2, needed)


def test_seeds_with_too_many_false_alarms_are_not_enough() -> None:
    assert least_seeds(lambda n: Power(n, 1.0, 1 / n), 0.8, ALPHA, 50) == 10
    assert least_seeds(lambda n: Power(n, 0.7, 0.0), 0.8, ALPHA, 50) is None


# The command.


def test_a_group_alone_is_planned_against_its_like(tmp_path: Path) -> None:
    pilot(tmp_path, [90.0, 100.0, 110.0, 104.0, 96.0])
    (table,) = told(tmp_path, "--difference", "30%", "--jobs", 3)["studies"][0]["tables"]
    (one,) = table["comparisons"]
    assert (one["group"], one["over"], one["pilots"]) == ("another group", "PPO", [0, 5])
    assert one["difference"] == pytest.approx(30.0)
    row = next(row for row in one["powers"] if row["seeds"] == one["seeds"])
    assert row["power"] >= 0.8
    runs = one["seeds"] + max(0, one["seeds"] - 5)  # the pilot's five are there
    # leave_run's take 21 s each, three at a time
    assert one["cost"] == {"runs": runs, "seconds": runs * 21.0, "elapsed": math.ceil(runs / 3) * 21.0}
    assert table["cost"] == one["cost"]


def test_groups_are_compared_as_in_the_report_and_the_better_one_is_to_be_better(tmp_path: Path) -> None:
    pilot(tmp_path, [120.0, 130.0, 140.0])
    pilot(tmp_path, [90.0, 100.0, 110.0], algorithm="DAAC")
    pilot(tmp_path, [190.0, 200.0, 210.0], algorithm="A2C")
    (table,) = told(tmp_path, "--difference", "10%", "--most", 6)["studies"][0]["tables"]
    pairs = [(one["group"], one["over"], one["difference"]) for one in table["comparisons"]]
    ppo, daac, a2c = "algorithm=PPO", "algorithm=DAAC", "algorithm=A2C"
    assert {pair[:2] for pair in pairs} == {(ppo, daac), (a2c, daac), (a2c, ppo)}
    assert {pair[:2]: pair[2] for pair in pairs}[ppo, daac] == pytest.approx(10.0)
    assert all(one["seeds"] is None for one in table["comparisons"])  # that is far too small for three seeds
    assert table["cost"]["runs"] == 9  # to six each, once
    text = planned(tmp_path, "--difference", "10%", "--most", 6, "--reps", 50).out
    assert "more than 6" in text
    assert "| all of them |" in text


def test_a_larger_difference_needs_fewer_seeds_and_more_power_more(tmp_path: Path) -> None:
    pilot(tmp_path, [90.0, 100.0, 110.0, 104.0, 96.0])

    def seeds(*arguments: object) -> int:
        (table,) = told(tmp_path, *arguments)["studies"][0]["tables"]
        return int(table["comparisons"][0]["seeds"])

    assert seeds("--difference", 25) < seeds("--difference", 12) < seeds("--difference", 12, "--power", 0.95)
    assert seeds("--difference", 12) < seeds("--difference", 12, "--alpha", 0.005)


def test_tasks_with_ranges_are_planned_together_and_others_apart(tmp_path: Path) -> None:
    for env in ("CartPole-v1", "Acrobot-v1"):
        pilot(tmp_path, [40.0, 50.0, 60.0, 55.0], env=env)
    ranges = ("--normalize", "CartPole-v1=0:100", "--normalize", "Acrobot-v1=0:100")
    (together,) = told(tmp_path, "--difference", 0.2, "--most", 20, *ranges)["studies"][0]["tables"]
    assert together["envs"] == ["Acrobot-v1", "CartPole-v1"]
    assert together["comparisons"][0]["means"] == pytest.approx([0.5125, 0.5125])
    apart = told(tmp_path, "--difference", 20, "--most", 20)["studies"][0]["tables"]
    assert [table["envs"] for table in apart] == [["Acrobot-v1"], ["CartPole-v1"]]
    both = together["comparisons"][0]["cost"]
    assert both["runs"] == 2 * (2 * together["comparisons"][0]["seeds"] - 4)
    assert together["comparisons"][0]["seeds"] <= apart[0]["comparisons"][0]["seeds"]


def test_the_same_plan_comes_out_again(tmp_path: Path) -> None:
    pilot(tmp_path, [90.0, 100.0, 110.0])
    asked = (tmp_path, "--difference", 40)
    assert told(*asked) == told(*asked)
    assert told(*asked)["studies"] != told(*asked, "--seed", 1)["studies"]


def test_runs_without_times_cost_what_their_speed_says(tmp_path: Path) -> None:
    pilot(tmp_path, [90.0, 100.0, 110.0])
    for run in tmp_path.iterdir():
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        (run / "metrics.jsonl").write_text("".join(json.dumps({**row, "time": None}) + "\n" for row in rows))
    (one,) = told(tmp_path, "--difference", 60)["studies"][0]["tables"][0]["comparisons"]
    assert one["cost"]["seconds"] == pytest.approx(one["cost"]["runs"] * 1000 / 500)  # steps, and steps per second


@pytest.mark.parametrize(
    ("scores", "arguments", "words"),
    [
        ([100.0], ["--difference", "5"], ("one seed that counts on CartPole-v1", "three or more")),
        ([100.0, 100.0], ["--difference", "5"], ("scored the same on CartPole-v1",)),
        ([-1.0, 1.0], ["--difference", "5%"], ("mean", "is 0", "without %")),
        ([1.0, 2.0], ["--difference=-5%"], ("--difference=-5%", "above 0")),
        ([1.0, 2.0], ["--difference", "nan"], ("--difference=nan",)),
        ([1.0, 2.0], ["--difference", "5", "--power", "80"], ("--power=80.0",)),
        ([1.0, 2.0], ["--difference", "5", "--alpha", "0"], ("--alpha=0.0",)),
        ([1.0, 2.0], ["--difference", "5", "--most", "1"], ("--most=1",)),
        ([1.0, 2.0], ["--difference", "5", "--jobs", "0"], ("--jobs=0",)),
        ([1.0, 2.0], ["--difference", "5", "--reps", "0"], ("--reps=0",)),
        ([1.0, 2.0], ["--difference", "5", "--seed", "-1"], ("--seed=-1",)),
        ([1.0, 2.0], ["--difference", "5", "--normalize", "Pong=0:1"], ("no run is on Pong",)),
        ([1.0, 2.0], ["--difference", "5", "--normalize", "CartPole-v1=1:1"], ("the range 1:1",)),
        ([1.0, 2.0], ["--difference", "5", "--metric", "success"], ("no seed that counts",)),
        ([1.0, 2.0], [], ("--difference",)),
    ],
)
def test_what_cannot_be_planned_is_refused(
    scores: list[float], arguments: list[str], words: Any, tmp_path: Path
) -> None:
    assert planned(pilot(tmp_path, scores), *arguments).refused(2, *words)


def test_no_run_succeeds_in_more_than_all_episodes(tmp_path: Path) -> None:
    pilot(tmp_path, [1.0, 2.0])
    for run, success in zip(sorted(tmp_path.iterdir()), (0.8, 1.0), strict=True):
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 1000, "time": 30.0, "eval/success": success}) + "\n")
    assert planned(tmp_path, "--metric", "success", "--difference", 0.2).refused(2, "in 0.9", "at most 0.1")
    assert planned(tmp_path, "--metric", "success", "--difference", 0.1, "--most", 4, "--reps", 50).code == 0


def test_a_group_with_one_seed_is_named_beside_others(tmp_path: Path) -> None:
    pilot(tmp_path, [90.0, 100.0, 110.0])
    pilot(tmp_path, [90.0], algorithm="DAAC")
    assert planned(tmp_path, "--difference", 5).refused(2, "algorithm=DAAC has one seed")
