"""The command: what it takes, what it prints, and the code with which it ends."""

from __future__ import annotations

import json

from hsw import check
from tests.runs import Result, call


def command(*arguments: str) -> Result:
    return call(*arguments, main=check.cli)


def test_a_fault_of_an_environment_ends_with_3_and_is_told_to_machines() -> None:
    done = command("tests.checking.planted.FlagsAsNumbers", "--format", "json")
    told = json.loads(done.out)
    assert done.code == told["exit_code"] == 3
    (fault,) = told["findings"]
    assert fault["code"] == "flag-type"
    assert fault["place"].startswith("tests/checking/planted.py:")
    assert told["figures"]["steps/s"] > 0
    assert "contract" not in told["passed"]


def test_a_command_line_that_cannot_work_ends_with_2_and_a_sentence() -> None:
    assert command("env=nope").refused(2, "there is no env=nope")
    assert command("nothing").refused(2, "nothing", "no class")
    assert command("seed=3").refused(2, "env=")
    assert command("agent=ppo", "--config-dir", "not/there").refused(2, "not/there")
    assert command("--wrong").refused(2, "--help")
