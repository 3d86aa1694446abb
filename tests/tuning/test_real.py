"""Studies of real runs in real processes, some of which are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hsw import tune
from hsw.analysis.results import find_studies, read_run
from hsw.config.files import conf_folder
from hsw.tuning import findings
from hsw.tuning.checking import check_space, composed, composing, follows_budget, own
from hsw.tuning.jobs import Jobs
from hsw.tuning.settings import read_command
from hsw.tuning.space import read_space
from tests.runs import ENVS, TINY, call, finish, rows, start, wait_for, without_times
from tests.tuning.studies import LR

PROGRAM = ("-m", "hsw.tune")
ENTROPY = "algorithm.entropy_schedule"
FINITE = "algorithm.lr=choice(1e-3, 1e30)"  # a step of 1e30 makes weights that are no numbers


def test_help_answers_at_once() -> None:
    code = "import sys, hsw.tune; sys.argv[1:] = ['--help']; hsw.tune.cli();"
    code += "print([m for m in ('torch', 'optuna', 'numpy', 'gymnasium') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for setting in ("trials", "seeds", "sampler", "pruner", "workers", "name"):
        assert f"tune.{setting}" in done.stdout


@pytest.mark.slow
def test_a_trials_seeds_are_jobs_and_a_failed_one_ends_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study from end to end: its folders are runs as any, and its best values a preset."""
    arguments = (*TINY, "agent=ppo", "env=cartpole", FINITE, f"tune.dir={tmp_path}", "tune.sampler=grid")
    arguments += ("tune.seeds=1", "tune.confirm=0")
    monkeypatch.setattr(findings, "_draw", lambda *_: False)
    result = call(*arguments, "quiet=false", main=tune.cli)
    assert result.code == 0, result.err
    folder = tmp_path / "ppo_cartpole"
    assert "trial 0: done" in result.out
    assert "trial 1: failed  seed 1:" in result.out
    runs = {str(run.relative_to(folder)): read_run(run) for one in find_studies([folder]).values() for run in one}
    assert runs["trial-0000/seed-1"].status == "done"
    assert runs["trial-0000/seed-1"].config["algorithm.lr"] == "0.001"
    assert runs["trial-0001/seed-1"].status == "failed"
    assert "# @package _global_" in (folder / "best.yaml").read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("agent=ppo", "~preset"), ["algorithm.lr_schedule"]),
        (("agent=ppo", "~preset", "algorithm.lr_schedule={_target_:hsw.schedule.Constant}"), []),
        (("agent=daac", "algorithm.entropy_schedule={_target_:hsw.schedule.Linear}", "~preset"), [ENTROPY]),
        (
            ("agent=sac", "env=pendulum", "storage=prioritized", "storage.storage_size=${num_train_steps}"),
            ["storage.storage_size", "storage.beta_end"],
        ),
        (("agent=dqn",), ["algorithm.epsilon_fraction"]),
        (("agent=dqn", "algorithm.epsilon_fraction=0"), []),
    ],
)
def test_what_would_be_another_at_a_larger_budget_is_known(overrides: tuple[str, ...], expected: list[str]) -> None:
    with composing(overrides):
        found = follows_budget(own(composed(overrides)))
    assert [one.partition("=")[0] for one in found] == expected


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ppo", "sac"])
def test_a_run_that_came_to_its_budget_by_rungs_is_the_run_that_went_there_at_once(tmp_path: Path, recipe: str) -> None:
    from tests.runs import tiny_run

    steps = {"ppo": ("algorithm.lr_schedule=constant", "algorithm.clip_schedule=constant"), "sac": ()}[recipe]
    arguments = (*tiny_run(recipe), *steps, "algorithm.lr=choice(1e-3, 2e-3)", "tune.sampler=grid", "tune.seeds=1")
    arguments += ("tune.confirm=0", "num_train_steps=192")
    halving = ("tune.pruner=halving", "tune.rungs=2", "tune.reduction=3")
    for name, more in (("once", ()), ("rungs", halving)):
        result = finish(start(*arguments, *more, f"tune.dir={tmp_path}", f"tune.name={name}", program=PROGRAM), 300)
        assert result.code == 0, result.err
    for trial in ("trial-0000", "trial-0001"):
        once, rungs = (without_times(tmp_path / name / trial / "seed-1") for name in ("once", "rungs"))
        if rungs[-1]["step"] < 192:
            continue  # pruned
        assert once[-1] == rungs[-1]
        assert [row for row in rungs if not any(key.startswith("eval/") for key in row)] == [
            row for row in once if not any(key.startswith("eval/") for key in row)
        ]


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def _table(text: str) -> list[str]:
    lines = text.splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("trial  "))
    return lines[begin : lines.index("", begin)]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_killed_three_times_comes_to_its_end(tmp_path: Path, workers: int) -> None:
    """With one worker to the table of an undisturbed one, with two to as many trials, none of them twice."""
    arguments = ("agent=ppo", "env=cartpole", "num_train_steps=4000", "quiet=true", "tune.trials=20", "tune.confirm=0")
    arguments += (LR, "storage.discount=choice(0.9, 0.99)", f"tune.dir={tmp_path}", f"tune.workers={workers}")
    done = tmp_path / "killed"
    for number in range(3):
        process = start(*arguments, "tune.name=killed", program=PROGRAM)
        wait_for(lambda n=number: len(list(done.glob("trial-*/seed-*/metrics.jsonl"))) >= 10 * (n + 1), 900)
        time.sleep(0.3 * number)
        _kill(process)
    result = finish(start(*arguments, "tune.name=killed", program=PROGRAM), 1800)
    assert result.code == 0, result.err
    folders = sorted(path.name for path in (tmp_path / "killed").glob("trial-*"))
    assert folders == [f"trial-{number:04d}" for number in range(20)]
    assert len(_table(result.out)) == 1 + 20
    for run in (tmp_path / "killed").glob("trial-*/seed-*"):
        steps = [(row["step"], "eval/return_mean" in row) for row in rows(run)]
        assert len(set(steps)) == len(steps)  # none twice
    if workers == 1:
        whole = finish(start(*arguments, "tune.name=whole", program=PROGRAM), 1800)
        assert _table(whole.out) == _table(result.out)


@pytest.mark.slow
def test_a_signal_saves_what_runs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    long = (*TINY[:1], *TINY[2:], "num_train_steps=200000", "agent=ppo", "env=cartpole", LR, "tune.trials=1")
    arguments = (*long, "tune.seeds=1", "tune.confirm=0", f"tune.dir={tmp_path}")
    run = tmp_path / "ppo_cartpole" / "trial-0000" / "seed-1"
    process = start(*arguments, program=PROGRAM)
    wait_for(lambda: rows(run), 120)
    process.send_signal(signal.SIGTERM)
    result = finish(process, 120)
    assert result.refused(143, "the same command goes on")
    assert list((run / "checkpoints").iterdir())
    before = rows(run)[-1]["step"]
    process = start(*arguments, program=PROGRAM)
    wait_for(lambda: rows(run)[-1]["step"] > before, 120)
    _kill(process)
    log = (run / "train.log").read_text()
    assert "resumed at step" in log


AGENTS = sorted(path.stem for path in (conf_folder() / "agent").glob("*.yaml"))


@pytest.mark.parametrize("agent", AGENTS)
def test_each_agent_has_a_space(agent: str) -> None:
    assert len(read_space(read_command(()), agent)) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_each_agents_space_has_only_values_that_its_runs_take(agent: str) -> None:
    command = read_command((f"agent={agent}", *ENVS[agent]))
    with composing(command.overrides):
        check_space(command.settings, command.overrides, read_space(command, agent))


@pytest.mark.slow
def test_a_job_that_is_refused_or_dies_has_a_sentence(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    try:
        refused = jobs.run(0, ["agent=ppo", "env=cartpole", "algorithm.lrr=1", "num_train_steps=64"], tmp_path / "a")
        assert (refused.status, refused.exit_code) == ("failed", 2)
        assert "algorithm.lr" in str(refused.note or refused.error)
        dies = ["agent=ppo", "env.id=tests.envs:Dies-v0", "num_train_steps=64", "env.num_envs=1"]
        died = jobs.run(0, dies, tmp_path / "b")
        assert (died.status, died.exit_code) == ("failed", 5)
        assert "died 3 times" in str(died.note or died.error)
        assert jobs.run(0, [*TINY, "agent=ppo", "env=cartpole"], tmp_path / "c").status == "done"
    finally:
        jobs.close()
