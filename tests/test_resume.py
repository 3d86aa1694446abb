"""A run that is stopped and continued is the run that was never stopped, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hsw.run.checkpoint import read_state, write_state
from tests.runs import agent_of, differences, rows, train_on

BUDGET = 200
FEATURES = ("env.frame_stack=3", "env.normalize_obs=true", "env.normalize_reward=true", "env.clip_reward=5")


def request_stop(agent: Any) -> None:
    agent.run.signals.requested = signal.SIGTERM


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


def in_evaluation(agent: Any) -> None:
    make, count = agent.eval_env, nth(2)

    def hooked() -> Any:
        env = make()
        if count(env):
            when(agent, env, "step", nth(5))
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
    when(agent, agent.run, "log", nth(2))


RECIPES = {"ppo": ("agent=ppo",), "daac": ("agent=daac", "algorithm.value_epochs=2")}
PLACES = [
    at_first_row,
    in_rollout,
    at_rollout_end,
    at_done_row,
    at_reset_row,
    at_first_minibatch,
    in_update,
    after_update,
    past_the_budget,
    in_evaluation,
    in_final_evaluation,
]


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


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_stop_anywhere_and_resume_changes_nothing(recipe: str, place: Any, finished: Any, tmp_path: Path) -> None:
    overrides = (*RECIPES[recipe], "env.id=tests.envs:Noise-v0", "eval_interval=60", *FEATURES)
    with agent_of(*overrides) as agent:
        place(agent)
        state = train_on(agent, BUDGET)
        assert state is not None, "the stop did not come"
    with agent_of(*overrides) as agent:
        agent.load_state_dict(stored_and_loaded(state, tmp_path / "state"))
        assert train_on(agent, BUDGET) is None
        assert differences(finished(*overrides), agent.state_dict()) == []


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_many_stops_change_nothing_in_either_backend(recipe: str, backend: str, finished: Any, tmp_path: Path) -> None:
    overrides = (*RECIPES[recipe], "env=cartpole", "eval_interval=100", f"env.backend={backend}", *FEATURES)
    state, stops = None, 0
    while stops == 0 or state is not None:
        with agent_of(*overrides) as agent:
            if stops:
                agent.load_state_dict(stored_and_loaded(state, tmp_path / "state"))
            when(agent, agent.env, "step", nth(23))
            state = train_on(agent, BUDGET)
            stops += 1
            end = agent.state_dict()
    assert stops >= 4
    assert differences(finished(*overrides), end) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_seed_gives_the_same_parameters_in_sync_and_async(recipe: str, finished: Any) -> None:
    ends = [
        finished(*RECIPES[recipe], "env=cartpole", "eval_interval=100", f"env.backend={backend}", *FEATURES)
        for backend in ("sync", "async")
    ]
    assert differences(*ends) == []


def test_another_seed_gives_other_parameters(finished: Any) -> None:
    ends = [finished("env=cartpole", f"seed={seed}") for seed in (1, 2)]
    assert differences(ends[0]["policy"], ends[1]["policy"])


def test_metrics_of_a_resumed_run_are_those_of_one_that_was_never_stopped(tmp_path: Path) -> None:
    overrides = ("env.id=tests.envs:Noise-v0", "eval_interval=60")
    with agent_of(*overrides, folder=tmp_path / "whole") as agent:
        agent.train(BUDGET)
    with agent_of(*overrides, folder=tmp_path / "parts") as agent:
        in_rollout(agent)
        assert train_on(agent, BUDGET) is not None
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999}\n')  # logged after the checkpoint, as if the run had been killed
    with agent_of(*overrides, folder=tmp_path / "parts") as agent:
        agent.load_state_dict(agent.run.load())
        agent.train(BUDGET)
    drop = ("time", "speed/steps_per_second")
    whole, parts = (
        [{key: value for key, value in row.items() if key not in drop} for row in rows(tmp_path / run)]
        for run in ("whole", "parts")
    )
    assert whole == parts
