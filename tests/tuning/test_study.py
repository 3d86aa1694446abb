"""A study: what it tries, that nothing that ends it changes what comes of it, and what it leaves."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hsw import tune
from hsw.config.resolved import identity
from hsw.errors import CorruptError
from hsw.tuning.checking import composed, composing, own
from hsw.tuning.journal import JOURNAL, Journal
from hsw.tuning.preset import preset_of
from hsw.tuning.samplers import proposer
from hsw.tuning.settings import read_command
from hsw.tuning.space import read_space
from tests.runs import call
from tests.tuning.studies import LR, FakeJobs, journal, peak, states, study, table

TWO = (LR, "storage.discount=choice(0.9, 0.99)")


def test_a_study_that_is_killed_at_any_job_comes_to_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TPE, past its random beginning: 12 trials of 2 seeds, killed before two jobs and after one."""
    arguments = (*TWO, "tune.trials=12", "quiet=true")
    whole = FakeJobs(peak)
    expected = table(study(monkeypatch, tmp_path / "whole", whole, *arguments))
    assert len(whole.ran) == 24
    total = []
    for until, after in ((1, False), (6, True), (10, False)):
        jobs = FakeJobs(peak, until, after)
        assert "Killed" in study(monkeypatch, tmp_path / "killed", jobs, *arguments).err
        total += jobs.ran
    last = FakeJobs(peak)
    assert table(study(monkeypatch, tmp_path / "killed", last, *arguments)) == expected
    total += last.ran
    assert {job for job, _ in total} == {job for job, _ in whole.ran}
    assert len(total) <= 24 + 3  # of each kill one job is asked for again, which is skipped or resumed
    nothing = FakeJobs(peak)
    assert table(study(monkeypatch, tmp_path / "killed", nothing, *arguments)) == expected
    assert nothing.ran == []


def test_a_journal_cut_off_anywhere_is_read_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (*TWO, "tune.trials=4", "tune.seeds=1", "quiet=true")
    expected = table(study(monkeypatch, tmp_path, FakeJobs(peak), *arguments))
    path = tmp_path / "s" / JOURNAL
    content = path.read_bytes()
    for size in (len(content) - 40, len(content) // 2, 0):
        path.write_bytes(content[:size])
        assert table(study(monkeypatch, tmp_path, FakeJobs(peak), *arguments)) == expected
        assert states(tmp_path) == ["done"] * 4


def test_a_broken_journal_is_refused_and_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (LR, "tune.trials=1", "tune.seeds=1")
    study(monkeypatch, tmp_path, FakeJobs(peak), *arguments)
    path = tmp_path / "s" / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"no JSON\n" + b"".join(lines[1:]))
    assert study(monkeypatch, tmp_path, FakeJobs(peak), *arguments).refused(7, JOURNAL, "move it away")
    path.replace(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert study(monkeypatch, tmp_path, FakeJobs(peak), *arguments).refused(7, "is a link")


def test_a_trial_that_fails_ends_no_study_and_all_of_them_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(told: dict[str, str], budget: int) -> float | Exception:
        if float(told["algorithm.lr"]) < 5e-4:
            return ValueError("the loss is NaN")
        return float("nan") if float(told["algorithm.lr"]) > 3e-3 else 1.0

    result = study(monkeypatch, tmp_path / "some", FakeJobs(sometimes), LR, "tune.trials=12", "tune.sampler=random")
    assert result.code == 0, result.err
    assert {"done", "failed"} == set(states(tmp_path / "some"))
    assert "seed 1: the loss is NaN" in result.out
    assert "no finite evaluation" in result.out
    never = FakeJobs(lambda told, budget: ValueError("the loss is NaN"))
    result = study(monkeypatch, tmp_path / "all", never, LR, "tune.trials=2")
    assert result.refused(4, "none of 2 trials has a score", "the loss is NaN")


def test_two_that_work_on_one_study_share_its_trials(tmp_path: Path) -> None:
    space = read_space(read_command(TWO), "ppo")
    propose = proposer("tpe", space, ["maximize"], 1)
    distributions = {one.name: one.distribution() for one in space}
    journals = [Journal(tmp_path, distributions, ["maximize"]) for _ in range(2)]
    took: list[int] = []

    def work(one: Journal) -> None:
        while taken := one.take(9, propose):
            took.append(taken.number)
            one.tell(taken, [1.0], one.study.get_trials()[0].state.COMPLETE)

    threads = [threading.Thread(target=work, args=(one,)) for one in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(took) == list(range(9))
    assert all(one.finished(9) for one in journals)


def test_a_running_trial_goes_to_another_once_its_process_is_gone(tmp_path: Path) -> None:
    space = read_space(read_command(TWO), "ppo")
    propose = proposer("random", space, ["maximize"], 1)
    distributions = {one.name: one.distribution() for one in space}
    one, other = (Journal(tmp_path, distributions, ["maximize"]) for _ in range(2))
    taken = one.take(1, propose)
    assert taken is not None
    assert other.take(1, propose) is None
    assert not other.finished(1)
    taken.claim.close()  # as the kernel does
    again = other.take(1, propose)
    assert again is not None
    assert (again.number, again.values) == (taken.number, taken.values)
    again.claim.close()
    (tmp_path / "trial-0001").mkdir()
    (tmp_path / "trial-0001" / "trial.json").write_text('{"values": {"algorithm.lr": 5, "storage.discount": "0.9"}}')
    kept = one.take(2, propose)
    with pytest.raises(CorruptError, match=r"trial\.json"):
        one.take(2, propose)
    assert kept is not None


def test_a_grid_is_tried_whole_and_random_trials_are_those_of_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FakeJobs(peak)
    values = ("algorithm.lr=choice(1e-3, 1e-2)", "storage.discount=0.9,0.99", "tune.seeds=1")
    study(monkeypatch, tmp_path / "grid", jobs, *values, "tune.sampler=grid")
    assert states(tmp_path / "grid") == ["done"] * 4
    space = read_space(read_command(TWO), "ppo")
    one, same, other = (proposer("random", space, ["maximize"], seed) for seed in (1, 1, 2))
    drawn = [one(number, []) for number in range(5)]
    assert [same(number, []) for number in (4, 3, 2, 1, 0)] == drawn[::-1]
    assert len({row["algorithm.lr"] for row in drawn}) == 5
    assert other(0, []) != drawn[0]


def test_seeds_race_and_budgets_halve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(peak)
    arguments = (LR, "tune.sampler=random", "tune.trials=6", "tune.seeds=5", "quiet=true")
    result = study(monkeypatch, tmp_path / "race", jobs, *arguments, "tune.pruner=race")
    assert "lost the race after 4 of 5" in result.out
    assert {"done", "pruned"} == set(states(tmp_path / "race"))
    expected = 5 * states(tmp_path / "race").count("done") + 4 * states(tmp_path / "race").count("pruned")
    assert len(jobs.ran) == expected

    jobs = FakeJobs(peak)
    halving = ("tune.pruner=halving", "tune.rungs=2", "tune.reduction=4", "quiet=true")
    arguments = (*arguments[:3], "tune.seeds=1", *halving)
    whole = study(monkeypatch, tmp_path / "halving", jobs, *arguments)
    assert {budget for _, budget in jobs.ran} == {1000, 4000}
    assert [budget for _, budget in jobs.ran].count(1000) == 6
    assert len({job for job, _ in jobs.ran}) == 6  # the same folder goes on
    assert states(tmp_path / "halving").count("pruned") == 12 - len(jobs.ran)
    for until in (3, 1):
        assert "Killed" in study(monkeypatch, tmp_path / "killed", FakeJobs(peak, until, after=True), *arguments).err
    assert table(study(monkeypatch, tmp_path / "killed", FakeJobs(peak), *arguments)) == table(whole)

    jobs = FakeJobs(peak)
    said = study(monkeypatch, tmp_path / "anew", jobs, *arguments, "tune.rescale=true", anew=("algorithm.lr_schedule",))
    assert "begins anew" in said.out
    assert ("trial-0000/steps-1000/seed-1", 1000) in jobs.ran
    assert ("trial-0000/seed-1", 4000) in jobs.ran


def test_of_two_objectives_the_front_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = ("eval_interval=1000", "tune.second=steps", "tune.threshold=0", "tune.trials=4", "tune.seeds=1")
    result = study(monkeypatch, tmp_path, FakeJobs(peak), LR, *seconds)
    assert "steps to threshold" in table(result)[0]
    assert {row.split()[3] for row in table(result)[1:]} <= {"4000", "8000"}


def test_the_best_run_again_on_fresh_seeds_beside_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lucky(told: dict[str, str], budget: int) -> float:
        value = float(told.get("algorithm.lr", 2e-3))
        tuned = int(told["seed"]) < 100
        return 100.0 if tuned and value > 5e-3 else 50.0 - abs(value - 1e-3) * 1e4 + int(told["seed"]) % 2

    jobs = FakeJobs(lucky)
    arguments = (LR, "tune.sampler=random", "tune.trials=6", "tune.confirm=4", "tune.confirm_seeds=3", "quiet=true")
    result = study(monkeypatch, tmp_path, jobs, *arguments, draws=True)
    assert result.code == 0, result.err
    fresh = [job for job, _ in jobs.ran if job.startswith("confirm/")]
    assert len(fresh) == len(set(fresh)) == (4 + 1) * 3
    assert all(int(job.rpartition("-")[2]) > 1000 for job in fresh)
    assert "trial-0" in result.out
    assert "95 % interval" in result.out
    first = table(result)[1].split()[0]  # the best by luck
    best = next(line for line in result.out.splitlines() if line.startswith("best: trial "))
    assert best.split()[2].rstrip(",") != first
    again = FakeJobs(lucky)
    assert table(study(monkeypatch, tmp_path, again, *arguments)) == table(result)
    assert again.ran == []
    report = (tmp_path / "s" / "report.md").read_text()
    for part in ("PED-ANOVA", "## Slices", "## History", "tuned - fresh", "| algorithm.lr | trials |"):
        assert part in report
    assert (tmp_path / "s" / "tuning.png").stat().st_size > 1000
    preset = OmegaConf.load(tmp_path / "s" / "best.yaml")
    assert (tmp_path / "s" / "best.yaml").read_text().startswith("# @package _global_\n")
    assert (tmp_path / "s" / "preset" / "best.yaml").read_text() == (tmp_path / "s" / "best.yaml").read_text()
    assert OmegaConf.select(preset, "algorithm.lr") > 0


def test_the_best_as_a_preset_composes_what_the_trial_ran(tmp_path: Path) -> None:
    overrides = ["agent=sac", "env=pendulum", "storage=prioritized", "storage.alpha=0.5", "+env.kwargs.g=9.0"]
    overrides += ["network.hidden_sizes=[32,32]", "num_train_steps=3000"]
    with composing(overrides):
        choices, values = preset_of(overrides)
        assert choices == ["agent=sac", "env=pendulum", "storage=prioritized"]
        expected = identity(own(composed(overrides)))
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "best.yaml").write_text("# @package _global_\n" + OmegaConf.to_yaml(values))
    overrides = [*choices, f"hydra.searchpath=['file://{tmp_path}']", "preset=best"]
    with composing(overrides):
        assert identity(own(composed(overrides))) == expected


def test_another_study_in_the_folder_and_a_folder_that_cannot_be_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (LR, "tune.trials=1", "tune.seeds=1")
    assert study(monkeypatch, tmp_path, FakeJobs(peak), *arguments).code == 0
    for other in ("storage.discount=0.5", "tune.seeds=2", "algorithm.lr=interval(1, 2)"):
        told = [one for one in arguments if one.partition("=")[0] != other.partition("=")[0]]
        refused = study(monkeypatch, tmp_path, FakeJobs(peak), *told, other)
        assert refused.refused(2, "holds a study with", "tune.name")
    assert study(monkeypatch, tmp_path, FakeJobs(peak), *arguments[1:], LR, "tune.workers=2", "device=cpu").code == 0
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("")
        closed = tmp_path / "file"
    else:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
    assert study(monkeypatch, closed, FakeJobs(peak), *arguments).refused(6, "cannot make")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("algorithm.lrr=interval(0, 1)",), 2, ("algorithm.lr",)),
        (("algorithm.clip_range=choice(0.1, -1)",), 2, ("algorithm.clip_range=-1", "must be")),
        (("network=choice(actor_critic, nothing)",), 2, ("nothing",)),
        ((LR, "tune.pruner=halving"), 2, ("lr_schedule=linear", "tune.rescale=true")),
        ((LR, "tune.last=3"), 2, ("eval_interval",)),
        ((LR, "env.kwargs.api_key=abcdefgh12345678"), 2, ("secret",)),
        ((LR, "--allow", "1x"), 2, ("names no package",)),
        ((LR, "algorithm._target_=os.system"), 2, ("os.system", "not allowed")),
    ],
)
def test_what_no_run_takes_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    result = call("agent=ppo", "env=cartpole", f"tune.dir={tmp_path}", *arguments, main=tune.cli)
    assert result.refused(code, *words)
    assert list(tmp_path.iterdir()) == []


def test_the_journal_has_no_line_of_a_trial_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Killed" in study(monkeypatch, tmp_path, FakeJobs(peak, 1), LR, "tune.trials=2", "quiet=true").err
    study(monkeypatch, tmp_path, FakeJobs(peak), LR, "tune.trials=2", "quiet=true")
    made = [line for line in journal(tmp_path) if line["op_code"] == 4]  # Optuna's CREATE_TRIAL
    assert len(made) == 2
