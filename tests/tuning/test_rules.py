"""The objective and the rules that end trials, against what they are defined as."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import trim_mean

from hsw.tuning.objective import iqm, score_of, steps_to
from hsw.tuning.pruning import budgets, goes_on, loses


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    random = np.random.default_rng(0)
    for count in range(1, 20):
        scores = random.normal(size=count)
        assert iqm(list(scores)) == pytest.approx(trim_mean(scores, 0.25), rel=1e-12)


def written(folder: Path, points: dict[int, float | None]) -> Path:
    rows = [{"step": step, "time": 1.0, "eval/return_mean": value} for step, value in points.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_score_is_the_mean_of_the_last_evaluations_up_to_the_budgets_end(tmp_path: Path) -> None:
    run = written(tmp_path, {100: 1.0, 200: 2.0, 310: 4.0, 400: 100.0})
    assert score_of(run, "return", 1, 300) == 4.0  # the rollout that ends a budget may pass it
    assert score_of(run, "return", 2, 300) == 3.0
    assert score_of(run, "return", 9, 300) == pytest.approx(7 / 3)
    assert score_of(run, "return", 1, 400) == 100.0
    assert score_of(run, "return", 1, 9000) == 100.0  # a callback ended it
    assert steps_to(run, "return", 4.0, 400) == 310
    assert steps_to(run, "return", 1000.0, 400) == 800


@pytest.mark.parametrize("points", [{}, {100: float("nan")}, {100: None}])
def test_a_run_without_a_finite_evaluation_has_no_score(tmp_path: Path, points: dict[int, float | None]) -> None:
    assert score_of(written(tmp_path, points), "return", 1, 100) is None


def test_budgets_grow_by_the_same_factor_to_the_whole() -> None:
    assert budgets(9000, 3, 3) == [1000, 3000, 9000]
    assert budgets(1000, 3, 3) == [112, 334, 1000]
    assert budgets(1, 3, 10) == [1, 1, 1]


def test_of_a_finished_rung_the_best_part_goes_on() -> None:
    """Whatever the order in which trials come: one of `reduction` of those that are there, and the best always."""
    for order in itertools.permutations(range(5)):
        for place, value in enumerate(order):
            others = order[:place]
            rank = sum(other > value for other in others)
            assert goes_on(value, others, 3) == (rank < max(1, (place + 1) // 3))
        assert goes_on(max(order) + 1, order, 3)


def test_a_race_is_lost_where_the_signed_ranks_say_so() -> None:
    best = [5.0, 6.0, 7.0, 8.0]
    worse = [score - 1 - 0.1 * n for n, score in enumerate(best)]
    assert loses(worse, best, 1 / 16)  # the one of 2^4 orders of signs that is worst
    assert not loses(worse, best, 1 / 17)
    assert not loses(worse[:3], best[:3], 0.1)
    assert not loses(best, best, 0.5)
    assert not loses([score + 1 for score in best], best, 0.5)
