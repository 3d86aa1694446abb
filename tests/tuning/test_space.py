"""What varies: Hydra's sweeps as ranges, and values as overrides."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hsw.errors import ConfigError
from hsw.tuning.settings import Command, Settings, read_command
from hsw.tuning.space import Parameter, grid, overrides_of, read_space, value_of


def space(*arguments: str, agent: str = "ppo") -> list[Parameter]:
    return read_space(read_command(arguments), agent)


@pytest.mark.parametrize(
    ("sweep", "kind", "low", "high", "log", "values"),
    [
        ("interval(0.1, 0.4)", "float", 0.1, 0.4, False, None),
        ("tag(log, interval(1e-5, 1e-2))", "float", 1e-5, 1e-2, True, None),
        ("int(interval(1, 4))", "int", 1, 4, False, [1, 2, 3, 4]),
        ("tag(int, log, interval(1, 8))", "int", 1, 8, True, [1, 2, 3, 4, 5, 6, 7, 8]),
        ("range(32, 129, 32)", "int", 32, 128, False, [32, 64, 96, 128]),
        ("range(4, 0, -1)", "int", 1, 4, False, [1, 2, 3, 4]),
        ("range(0, 1, 0.25)", "float", 0.0, 0.75, False, [0.0, 0.25, 0.5, 0.75]),
    ],
)
def test_numbers_of_hydras_grammar_are_the_range_that_hydra_means(sweep, kind, low, high, log, values) -> None:
    (one,) = space(f"algorithm.lr={sweep}")
    assert (one.name, one.kind, one.low, one.high, one.log) == ("algorithm.lr", kind, low, high, log)
    assert one.values() == values
    distribution = one.distribution()
    for value in values or (low, high):
        assert distribution._contains(distribution.to_internal_repr(value))


@pytest.mark.parametrize("sweep", ["choice([64,64], [256])", "choice('a b', null_)", "1,2,3", "choice(true, false)"])
def test_a_choice_means_as_an_override_what_it_means_in_hydras_sweep(sweep) -> None:
    (one,) = space(f"network.hidden_sizes={sweep}")
    parser = OverridesParser.create()
    override = parser.parse_override(f"network.hidden_sizes={sweep}")
    expected = [str(value) for value in override.sweep_iterator()]
    drawn = [parser.parse_override(one.override(value)).value() for value in one.values() or ()]
    assert [str(value) for value in drawn] == expected
    assert len(drawn) == len(one.choices) > 1
    assert [value_of(value) for value in one.choices] == [getattr(value, "text", value) for value in drawn]


def test_a_drawn_number_is_the_same_number_in_the_run() -> None:
    (one,) = space("algorithm.lr=interval(0, 1)")
    for value in (1e-5, 0.1 + 0.2, 1 / 3, 5e-324):
        assert float(one.override(value).partition("=")[2]) == value
        assert value_of(one.override(value).partition("=")[2]) == value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("algorithm.lr=interval(1, 0)",), "lower to a higher"),
        (("algorithm.lr=interval(0, inf)",), "finite"),
        (("algorithm.lr=tag(log, interval(0, 1))",), "above 0"),
        (("algorithm.lr=tag(lgo, interval(1, 2))",), "there are log and int"),
        (("algorithm.lr=tag(int, interval(0.5, 2))",), "whole numbers"),
        (("algorithm.lr=choice(1, 1)",), "twice"),
        (("algorithm.lr=range(1, 1)",), "no values"),
        (("storage=glob(*)",), "which values to try"),
        (("seed=choice(1, 2)",), "tune.seeds"),
        (("num_train_steps=choice(1, 2)",), "budget"),
        (("logger=choice(local, csv)",), "cannot be varied"),
        (("resume=x", "algorithm.lr=interval(0, 1)"), "resume"),
        (("hydra.run.dir=x", "algorithm.lr=interval(0, 1)"), "tune.dir"),
        (("hydra/launcher=joblib", "algorithm.lr=interval(0, 1)"), "tune.dir"),
        (("experiments=all_agents",), "experiments"),
        (("fail_fast=true",), "ends no study"),
        (("--multirun",), "no flag --multirun"),
        (("tune.trails=3",), "tune.trials"),
        (("tune.trials=0",), "in [1, 100000]"),
        (("tune.trials=many",), "whole number"),
        (("tune.sampler=cmaes",), "tpe, random, grid"),
        (("tune.name=../x",), "tune.name"),
        (("tune.name=.hidden",), "tune.name"),
        (("tune.pruner=race",), "5 seeds at least"),
        (("tune.second=steps",), "tune.threshold"),
        (("tune.threshold=3",), "tune.second=steps"),
        (("tune.second=time", "tune.pruner=halving"), "leave one of them out"),
        (("tune={trials: 3}",), "one by one"),
    ],
)
def test_what_is_no_space_or_setting_is_refused_in_a_sentence(arguments, words) -> None:
    with pytest.raises(ConfigError) as caught:
        space(*arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_wins_over_the_file_of_the_space() -> None:
    names = {one.name: one for one in space("tune.space=ppo", "algorithm.lr=interval(1, 2)", "storage.discount=0.9")}
    assert names["algorithm.lr"].low == 1
    assert "storage.discount" not in names
    assert "algorithm.num_epochs" in names
    assert [one.name for one in space("algorithm.lr=interval(1, 2)")] == ["algorithm.lr"]
    with pytest.raises(ConfigError, match=r"no tune\.space=nothing"):
        space("tune.space=nothing")


def test_a_grid_is_every_combination_once() -> None:
    axes = space(
        "algorithm.lr=1e-3,1e-4", "storage.num_steps=range(8, 25, 8)", "network=choice(actor_critic, recurrent)"
    )
    rows = grid(axes)
    assert len(rows) == len({tuple(row.items()) for row in rows}) == 2 * 3 * 2
    assert overrides_of(axes, rows[-1]) == ["algorithm.lr=0.0001", "storage.num_steps=24", "network=recurrent"]
    with pytest.raises(ConfigError, match="one by one"):
        grid(space("algorithm.lr=interval(1, 2)"))


def test_a_race_needs_seeds_enough_to_be_lost_before_the_last() -> None:
    for seeds, p, enough in ((4, 0.1, False), (5, 0.1, True), (5, 0.05, False), (6, 0.05, True), (2, 0.5, True)):
        settings = Settings(pruner="race", seeds=seeds, p=p)
        if enough:
            settings.check()
        else:
            with pytest.raises(ConfigError):
                settings.check()
    assert Command(settings, [], [], set()).settings is settings
