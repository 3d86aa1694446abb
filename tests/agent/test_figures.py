"""Means by name, and how time is shared."""

from __future__ import annotations

from typing import Any

import pytest

from hsw.agent.figures import Means
from tests.agent.helpers import agent, replay_agent
from tests.env.helpers import make


def test_a_figure_that_comes_with_every_second_update_is_divided_by_half_of_them() -> None:
    means = Means()
    for index in range(6):
        means.add({"loss": float(index), **({"rare": 10.0 + index} if index % 2 else {})})
    assert means.pop() == {"loss": 2.5, "rare": 13.0}
    assert means.pop() == {}


def test_counts_go_on_where_they_were() -> None:
    before, after = Means(), Means()
    before.add({"loss": 1.0, "rare": 4.0})
    before.add({"loss": 2.0})
    after.load_state_dict(before.state_dict())
    after.add({"loss": 6.0})
    assert after.pop() == {"loss": 3.0, "rare": 4.0}


def test_the_sums_of_a_0_1_checkpoint_are_divided_by_its_updates() -> None:
    means = Means()
    means.load_state_dict({"sums": {"critic_loss": 6.0, "updates": 3.0}})
    means.add({"critic_loss": 2.0})
    assert means.pop() == {"critic_loss": 2.0}
    means.load_state_dict({"sums": {}})
    assert means.pop() == {}


@pytest.mark.parametrize("build", [agent, replay_agent])
def test_the_shares_of_collecting_and_learning_are_those_of_the_iteration(build: Any) -> None:
    trained = build()
    logged: list[dict[str, float]] = []
    trained.services.log = lambda step, metrics: logged.append(metrics)
    trained.train(100)
    shares = [logged[-1][f"speed/{phase}_share"] for phase in ("collecting", "learning")]
    assert min(shares) > 0
    assert sum(shares) <= 1.0
    parts = [logged[-1][f"speed/{phase}_share"] for phase in ("act", "env", "store", "update")]
    assert min(parts) > 0
    assert sum(parts[:3]) <= shares[0]
    assert parts[3] <= shares[1]
    assert logged[-1]["train/episodes"] == trained.num_episodes > 0


def test_a_replay_logs_how_much_it_holds() -> None:
    trained = replay_agent(
        "Counter", env={"kwargs": {"continuous": True, "length": 10**6}}, num_envs=1, log_interval=10
    )
    logged: list[dict[str, float]] = []
    trained.services.log = lambda step, metrics: logged.append(metrics)  # type: ignore[method-assign]
    trained.train(30)
    assert [row["storage/size"] for row in logged] == [10, 20, 30]


def test_an_evaluation_logs_the_length_of_its_episodes() -> None:
    trained = agent("Counter", eval_env=lambda: make("Counter", 1, kwargs={"length": 7}), eval_episodes=2)
    logged: list[dict[str, float]] = []
    trained.services.log = lambda step, metrics: logged.append(metrics)  # type: ignore[method-assign]
    trained.train(20)
    assert logged[-1]["eval/length"] == pytest.approx(7.0)
    assert trained.last_scores is not None
    assert trained.last_scores["lengths"] == [7, 7]
