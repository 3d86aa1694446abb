import math

import pytest
from gymnasium.spaces import Box

from hsw.build import build
from hsw.config.resolved import check
from hsw.errors import ConfigError
from hsw.network import ActorCritic, DecoupledActorCritic, RecurrentActorCritic, SoftActorCritic
from hsw.schedule import Constant, Cosine, Exponential, Linear, Piecewise, factor
from tests.runs import ENVS, compose

POLICIES = {"ppo": ActorCritic, "daac": DecoupledActorCritic, "sac": SoftActorCritic, "impala": RecurrentActorCritic}
OPTIMIZER = {"ppo": "all", "daac": "value", "sac": "alpha", "impala": "all"}

POINTS = [[0.2, 1.0], [0.4, 0.5], [0.9, 0.1]]


def naive_piecewise(progress, interpolate):
    before = [point for point in POINTS if point[0] <= progress]
    after = [point for point in POINTS if point[0] > progress]
    if not before:
        return 1.0
    if not after or not interpolate:
        return before[-1][1]
    (x0, y0), (x1, y1) = before[-1], after[0]
    return y0 * (x1 - progress) / (x1 - x0) + y1 * (progress - x0) / (x1 - x0)


ORACLES = {
    "constant": (Constant(0.3), lambda p: 0.3),
    "linear": (Linear(0.8, 0.2), lambda p: 0.8 * (1 - p) + 0.2 * p),
    "cosine": (Cosine(0.8, 0.2), lambda p: 0.2 + 0.6 * math.cos(p * math.pi / 2) ** 2),
    "exponential": (Exponential(1.0, 0.01), lambda p: 10 ** (-2 * p)),
    "piecewise": (Piecewise(POINTS), lambda p: naive_piecewise(p, True)),
    "steps": (Piecewise(POINTS, interpolate=False), lambda p: naive_piecewise(p, False)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_schedule_is_its_formula(name):
    schedule, formula = ORACLES[name]
    for progress in [n / 20 for n in range(21)]:
        assert schedule(progress) == pytest.approx(formula(progress), abs=1e-12)


@pytest.mark.parametrize("progress", [0.0, 0.1, 1 / 3, 0.7, 1.0])
def test_the_names_of_before_mean_the_same_bits(progress):
    assert 2.5e-4 * factor("linear", progress) == 2.5e-4 * (1.0 - progress)
    assert 2.5e-4 * factor("constant", progress) == 2.5e-4


def test_names_are_the_classes_with_their_defaults():
    for name, schedule in {"cosine": Cosine(), "exponential": Exponential()}.items():
        assert [factor(name, p / 4) for p in range(5)] == [schedule(p / 4) for p in range(5)]


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ConfigError, match="no schedule quadratic; use constant, linear"):
        factor("quadratic", 0.5)
    for points in ([], [[0.5, 1.0], [0.5, 0.0]], [[0.1]]):
        with pytest.raises(ConfigError, match="pairs of rising progress"):
            Piecewise(points)


@pytest.mark.parametrize("recipe", POLICIES)
def test_every_algorithm_takes_a_schedule_from_its_config(recipe):
    value = "{_target_:hsw.schedule.Piecewise,points:[[0.0,1.0],[1.0,0.5]]}"
    config = compose(f"agent={recipe}", *ENVS[recipe], f"algorithm.lr_schedule={value}", "algorithm.lr=0.1")
    check(config)
    policy = POLICIES[recipe](Box(-1, 1, (3,)), Box(-1, 1, (2,)))
    algorithm = build(config.algorithm, policy=policy)
    algorithm.progress = 0.5
    assert algorithm.make_optimizer(OPTIMIZER[recipe]).param_groups[0]["lr"] == pytest.approx(0.075)


def test_a_schedule_that_cannot_be_is_refused_in_one_sentence():
    config = compose("algorithm.lr_schedule={_target_:hsw.schedule.Piecewise,points:[[1.0,1.0],[0.0,0.5]]}")
    with pytest.raises(ConfigError, match="pairs of rising progress"):
        build(config.algorithm, policy=ActorCritic(Box(-1, 1, (3,)), Box(-1, 1, (2,))))
