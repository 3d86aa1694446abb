"""The model of throughput: what the simulation says where the answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale_costs import line
from benchmarks.scale_model import Costs, Line, Setup, limits, set_time, weights_delay
from benchmarks.scale_simulation import Shared, Simulation, World
from benchmarks.scale_tables import written

FREE = Line(0.0)
COSTS = Costs(
    env=Line(10e-6, 5e-6),
    act=Line(100e-6),
    store=Line(50e-6),
    fetch=100e-6,
    take=Line(100e-6, 1e-6),
    update=Line(1e-3, 100e-6),
    publish=50e-6,
    receive=Line(10e-6),
    put=Line(5e-6),
    look=Line(5e-6, 1e-6),
    rollout_bytes=5000,
    weight_bytes=30_000,
    valid=0.9,
)
SETUP = Setup(actors=2, envs=8, num_steps=80, batch_size=16, slots=64, cores=64)


def steps(costs: Costs, setup: Setup) -> float:
    return Simulation(costs, setup).run(5.0, 1.0)["steps_per_second"]


def test_a_shared_resource_divides_itself_among_its_tasks() -> None:
    world = World()
    core, ends = Shared(world, 1.0), []
    core.run(1.0, lambda: ends.append(("short", world.now)))
    core.run(3.0, lambda: ends.append(("long", world.now)))
    world.after(2.5, lambda: core.run(0.5, lambda: ends.append(("late", world.now))))
    world.run(10.0)
    # Two share until the short one has its second at 2; the late one shares with the long one from 2.5 on.
    assert ends == [("short", pytest.approx(2.0)), ("late", pytest.approx(3.5)), ("long", pytest.approx(4.5))]


def test_other_users_tasks_take_their_share() -> None:
    world, ends = World(), []
    Shared(world, 2.0, background=3.0).run(1.0, lambda: ends.append(world.now))
    world.run(10.0)
    assert ends == [pytest.approx(2.0)]


def test_where_sessions_share_more_tasks_of_ones_own_bring_no_more_of_the_machine() -> None:
    world, ends = World(), []
    cores = Shared(world, 2.0, background=3.0, grouped=True)
    for _ in range(2):
        cores.run(1.0, lambda: ends.append(world.now))
    world.run(10.0)
    assert ends == [pytest.approx(4.0)] * 2


@pytest.mark.parametrize(
    ("first", "costs", "setup"),
    [
        ("actors", replace(COSTS, update=FREE), SETUP),
        ("actors", COSTS, replace(SETUP, actors=1)),
        ("learner", replace(COSTS, update=Line(50e-3)), SETUP),
        ("learner", COSTS, replace(SETUP, actors=40, slots=700)),
        ("loader", replace(COSTS, take=Line(50e-3), update=FREE), SETUP),
        ("pool", replace(COSTS, receive=Line(2e-3), update=FREE), replace(SETUP, actors=8, slots=300)),
        ("network in", replace(COSTS, update=FREE), replace(SETUP, actors_a_machine=8, bandwidth=1e6)),
        ("cores", replace(COSTS, update=FREE), replace(SETUP, cores=1)),
    ],
)
def test_the_simulation_does_what_the_first_limit_allows(first: str, costs: Costs, setup: Setup) -> None:
    found = limits(costs, setup)
    assert min(found, key=lambda name: found[name]) == first
    assert steps(costs, setup) == pytest.approx(found[first], rel=0.1)


def test_few_slots_hold_back_what_the_formulas_allow() -> None:
    many = replace(SETUP, actors=8, slots=300)
    assert steps(COSTS, replace(many, slots=23)) < 0.5 * steps(COSTS, many)


def test_what_waits_is_idle_and_old() -> None:
    slow = Simulation(replace(COSTS, update=Line(0.5)), SETUP).run(20.0, 5.0)
    assert slow["learner_idle"] == pytest.approx(0.0, abs=0.01)
    assert slow["actors_idle"] > 0.9
    # All slots wait their turn, behind two batches that are loaded.
    assert slow["policy_lag"] == pytest.approx(SETUP.slots / SETUP.batch_size + 2, abs=0.5)
    fast = Simulation(replace(COSTS, update=FREE, publish=0.0), SETUP).run(5.0, 1.0)
    assert fast["learner_idle"] > 0.9
    assert fast["actors_idle"] == pytest.approx(0.0, abs=0.02)


def test_weights_that_take_long_to_arrive_make_the_lag_and_hold_nobody_back() -> None:
    near = replace(SETUP, actors_a_machine=1, bandwidth=1.25e9)
    heavy = replace(COSTS, weight_bytes=1.25e8)
    assert weights_delay(heavy, near) == pytest.approx(0.2)
    one, other = (Simulation(costs, near).run(5.0, 1.0) for costs in (COSTS, heavy))
    assert other["steps_per_second"] == pytest.approx(one["steps_per_second"], rel=0.05)
    assert other["policy_lag"] > 5 * one["policy_lag"]


def test_the_time_of_a_set_is_its_formula() -> None:
    assert set_time(COSTS, SETUP) == pytest.approx(80 * (10e-6 + 8 * 5e-6 + 150e-6) + 100e-6)


def test_a_line_is_found_again() -> None:
    found = line((2, 8, 24), [3e-6 + 2e-6 * n for n in (2, 8, 24)])
    assert math.isclose(found.fixed, 3e-6, rel_tol=1e-6)
    assert math.isclose(found.each, 2e-6, rel_tol=1e-6)


def test_tables_are_written_between_their_marks_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    marks = "<!-- forecast: made by benchmarks.scale -->\n{}<!-- end of forecast -->"
    page.write_text(f"before\n{marks.format('old')}\nafter\n")
    simulated = Simulation(COSTS, SETUP).run(1.0, 0.5)
    found = limits(COSTS, SETUP)
    row = {"workload": "w", "where": "here", "actors": 2, "formula": min(found.values()), "limits": found}
    written(page, {"forecast": [{**row, "simulated": simulated}]})
    text = page.read_text()
    assert text.startswith("before\n<!-- forecast")
    assert text.endswith("<!-- end of forecast -->\nafter\n")
    assert "| w | here | 2 |" in text
    assert "old" not in text
