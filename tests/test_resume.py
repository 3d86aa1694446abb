"""A run that is stopped and continued is the run that was never stopped, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hsw.run.checkpoint import read_state, write_state
from tests.runs import CONTINUOUS, GOALS, agent_of, differences, train_on, without_times

BUDGET = 150
FEATURES = ("env.frame_stack=3", "env.normalize_obs=true", "env.normalize_reward=true", "env.clip_reward=5")


def request_stop(agent: Any) -> None:
    agent.services.signals.requested = signal.SIGTERM


def when(agent: Any, owner: Any, method: str, condition: Any) -> None:
    """Ask for a stop after a call of owner's method whose result meets the condition."""
    original = getattr(owner, method)

    def hooked(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if condition(result):
            request_stop(agent)
        return result

    setattr(owner, method, hooked)


def nth(n: int, matches: Any = lambda result: True) -> Any:
    """A condition that holds for the nth result that matches."""
    seen = [0]

    def condition(result: Any) -> bool:
        seen[0] += bool(matches(result))
        return bool(matches(result)) and seen[0] == n

    return condition


def in_rollout(agent: Any) -> None:
    when(agent, agent.env, "step", nth(41))


def at_rollout_end(agent: Any) -> None:
    when(agent, agent.env, "step", nth(32))


def at_first_row(agent: Any) -> None:
    request_stop(agent)


def at_done_row(agent: Any) -> None:
    when(agent, agent.env, "step", nth(3, lambda step: (step.terminateds | step.truncateds).any()))


def at_reset_row(agent: Any) -> None:
    when(agent, agent.env, "step", nth(2, lambda step: not step.valid.all()))


def in_update(agent: Any, minibatch: int = 3) -> None:
    original, update = agent.storage.generate_batches, [0]

    def hooked(*args: Any, **kwargs: Any) -> Any:
        update[0] += 1
        for index, batch in enumerate(original(*args, **kwargs)):
            if update[0] == 3 and index == minibatch:
                request_stop(agent)
            yield batch

    agent.storage.generate_batches = hooked


def at_first_minibatch(agent: Any) -> None:
    in_update(agent, 0)


def at_the_budget(agent: Any) -> None:
    when(agent, agent, "_collect_row", nth(1, lambda _: agent.step >= BUDGET))


def in_warm_up(agent: Any) -> None:
    when(agent, agent.env, "step", nth(3))


def before_the_first_update(agent: Any) -> None:
    when(agent, agent, "_collect_row", nth(1, lambda _: agent.step > agent.num_warmup_steps))


def before_updates_in_a_full_ring(agent: Any) -> None:
    when(agent, agent.env, "step", nth(1, lambda _: agent.step > 120))


def between_updates(agent: Any) -> None:
    when(agent, agent.algorithm, "update", nth(30))


def after_updates(agent: Any) -> None:
    owed = lambda: int(agent.updates_per_step * (agent.step - agent.num_warmup_steps))
    when(agent, agent, "_update", nth(20, lambda _: agent._updates == owed()))


def in_evaluation(agent: Any) -> None:
    make, count = agent.eval_env, nth(2)

    def hooked() -> Any:
        env = make()
        if count(env):
            when(agent, env, "step", nth(1))
        return env

    agent.eval_env = hooked


def in_final_evaluation(agent: Any) -> None:
    original = agent.eval

    def hooked(*args: Any) -> Any:
        if agent.step >= BUDGET:
            request_stop(agent)
        return original(*args)

    agent.eval = hooked


def past_the_budget(agent: Any) -> None:
    """In a rollout that spends the budget before it is full."""
    when(agent, agent.env, "step", nth(1, lambda step: agent.step >= BUDGET - 1))


def after_update(agent: Any) -> None:
    when(agent, agent.services, "log", nth(2))


NOISE = "env.id=tests.envs:Noise-v0"
ON_POLICY = {"ppo": ("agent=ppo", *FEATURES), "daac": ("agent=daac", "algorithm.value_epochs=2", *FEATURES)}
RECURRENT = ("agent=recurrent_ppo", "storage.sequence_length=5", "network.cell_size=4", NOISE, *FEATURES)
DISTILLING = ("agent=ppo_rnd", "intrinsic_reward.hidden_sizes=[8]", NOISE, *FEATURES)
WARMUP, FRAMES = "agent.num_warmup_steps=80", "env.frame_stack=3"
OFF_POLICY = {
    "sac": ("agent=sac", *CONTINUOUS, "agent.updates_per_step=0.5", WARMUP, "network.normalize_obs=true", FRAMES),
    "her_sac": ("agent=her_sac", *GOALS, "agent.updates_per_step=2.0", WARMUP),
}
PLACES = [
    at_first_row,
    in_rollout,
    at_done_row,
    at_reset_row,
    after_update,
    in_evaluation,
    in_final_evaluation,
]
PLACES_ON_POLICY = [*PLACES, past_the_budget, at_rollout_end, at_first_minibatch, in_update]
PLACES_OFF_POLICY = [
    *PLACES,
    at_the_budget,
    in_warm_up,
    before_the_first_update,
    before_updates_in_a_full_ring,
    between_updates,
    after_updates,
]
STOPS = [
    *[(recipe, (*ON_POLICY[recipe], NOISE), place) for recipe in ON_POLICY for place in PLACES_ON_POLICY],
    *[("recurrent_ppo", RECURRENT, place) for place in (in_rollout, at_reset_row, in_update, at_rollout_end)],
    *[("ppo_rnd", DISTILLING, place) for place in (in_rollout, in_update)],
    *[(recipe, OFF_POLICY[recipe], place) for recipe in OFF_POLICY for place in PLACES_OFF_POLICY],
]
# Of hindsight these are fast tests; the others differ little from those of sac.
FAST_HINDSIGHT = (at_done_row, before_updates_in_a_full_ring, between_updates)


def marks(recipe: str, place: Any) -> tuple[Any, ...]:
    return (pytest.mark.slow,) * (recipe == "her_sac" and place not in FAST_HINDSIGHT)


@pytest.fixture(scope="module")
def finished() -> Any:
    """The final state of an uninterrupted run, made once for each command line."""
    made: dict[tuple[str, ...], Any] = {}

    def state(*overrides: str) -> Any:
        if overrides not in made:
            with agent_of(*overrides) as agent:
                agent.train(BUDGET)
                made[overrides] = agent.state_dict()
        return made[overrides]

    return state


def stored_and_loaded(state: Any, folder: Path) -> Any:
    write_state(folder, state, {})
    return read_state(folder)[0]


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        pytest.param(overrides, place, id=f"{recipe}-{place.__name__}", marks=marks(recipe, place))
        for recipe, overrides, place in STOPS
    ],
)
def test_stop_anywhere_and_resume_changes_nothing(overrides: Any, place: Any, finished: Any, tmp_path: Path) -> None:
    overrides = (*overrides, "eval_interval=60")
    with agent_of(*overrides) as agent:
        place(agent)
        state = train_on(agent, BUDGET)
        assert state is not None, "the stop did not come"
        state = stored_and_loaded(state, tmp_path / "state")
    with agent_of(*overrides) as agent:
        agent.load_state_dict(state)
        assert train_on(agent, BUDGET) is None
        assert differences(finished(*overrides), agent.state_dict()) == []


BACKENDS = {
    **{recipe: (*overrides, "env=cartpole") for recipe, overrides in ON_POLICY.items()},
    **OFF_POLICY,
}


@pytest.mark.parametrize(
    ("recipe", "backend"),
    [
        *[(recipe, backend) for recipe in ON_POLICY for backend in ("sync", "async")],
        ("sac", "async"),
        *[
            pytest.param(recipe, backend, marks=pytest.mark.slow)
            for recipe, backend in (("sac", "sync"), ("her_sac", "sync"), ("her_sac", "async"))
        ],
    ],
)
def test_many_stops_change_nothing_in_either_backend(recipe: str, backend: str, finished: Any, tmp_path: Path) -> None:
    overrides = (*BACKENDS[recipe], "eval_interval=100", f"env.backend={backend}")
    state, stops = None, 0
    while stops == 0 or state is not None:
        with agent_of(*overrides) as agent:
            if state is not None:
                agent.load_state_dict(stored_and_loaded(state, tmp_path / "state"))
            when(agent, agent.env, "step", nth(23))
            state = train_on(agent, BUDGET)
            stops += 1
            end = agent.state_dict()
    assert stops >= 4
    assert differences(finished(*overrides), end) == []


@pytest.mark.parametrize("recipe", ["ppo", "daac", "sac", pytest.param("her_sac", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_parameters_in_sync_and_async(recipe: str, finished: Any) -> None:
    ends = [finished(*BACKENDS[recipe], "eval_interval=100", f"env.backend={backend}") for backend in ("sync", "async")]
    assert differences(*ends) == []


def test_another_seed_gives_other_parameters(finished: Any) -> None:
    ends = [finished("env=cartpole", f"seed={seed}") for seed in (1, 2)]
    assert differences(ends[0]["policy"], ends[1]["policy"])


@pytest.mark.parametrize(
    ("recipe", "step"),
    [
        ("ppo", 41),
        ("sac", 100),  # where a checkpoint is due
        pytest.param("sac", 97, marks=pytest.mark.slow),  # where a row is logged
        pytest.param("sac", 105, marks=pytest.mark.slow),
        pytest.param("her_sac", 81, marks=pytest.mark.slow),
    ],
)
def test_metrics_of_a_resumed_run_are_those_of_one_that_was_never_stopped(
    recipe: str, step: int, tmp_path: Path
) -> None:
    recipes = {**OFF_POLICY, "ppo": ("agent=ppo", NOISE)}
    overrides = (*recipes[recipe], "eval_interval=60", "checkpoint_interval=50")
    with agent_of(*overrides, folder=tmp_path / "whole") as agent:
        agent.train(BUDGET)
    with agent_of(*overrides, folder=tmp_path / "parts") as agent:
        when(agent, agent, "_collect_row", nth(1, lambda _: agent.step >= step))
        assert train_on(agent, BUDGET) is not None
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999}\n')  # logged after the checkpoint, as if the run had been killed
    with agent_of(*overrides, folder=tmp_path / "parts") as agent:
        agent.load_state_dict(agent.services.load())
        agent.train(BUDGET)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "parts")
