"""Each planted fault of an algorithm, a storage or a policy is named, and hsw's own pass."""

from __future__ import annotations

import pytest

from hsw.checking.command import check_all
from tests.checking.parts import FAULTS
from tests.runs import ENVS

FAST = ("DetachedValues", "RunningScale", "ResetRows")  # each trains several times


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in FAULTS])
def test_a_planted_fault_is_named_with_its_place(name: str) -> None:
    code, words, check, overrides = FAULTS[name]
    report = check_all([f"tests.checking.parts.{name}", *overrides], only=[check])
    told = [one for one in report.faults if one.code == code]
    assert told, [f"{one.code}: {one.message}" for one in report.findings]
    assert any(words in f"{one.place} {one.message}" for one in told), told
    assert all(one.advice for one in told)
    assert any("parts.py:" in one.place for one in told), told
    assert report.exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize("agent", ENVS)
def test_hsws_own_agents_pass(agent: str) -> None:
    report = check_all([f"agent={agent}"])
    assert report.findings == []
    assert {"training", "gradients", "edges"} <= set(report.passed)


@pytest.mark.parametrize(("agent", "check"), [("ppo", "transitions"), ("dqn", "gradients")])
def test_two_of_them_pass_one_check_in_a_moment(agent: str, check: str) -> None:
    report = check_all([f"agent={agent}"], only=[check])
    assert (report.findings, report.passed) == ([], ["training", check])
