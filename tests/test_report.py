"""The report: which runs it counts, how it groups them, and figures against rliable and the published ones."""

import csv
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from absl import logging as absl_logging
from rliable import library, metrics

from hsw.analysis.estimates import aggregate, normalise, probability_of_improvement
from hsw.analysis.groups import CANNOT_MATTER, group_runs
from hsw.analysis.report_data import plain
from hsw.analysis.results import find_studies, read_run
from hsw.analysis.tables import to_csv, to_json, to_markdown
from hsw.config.settings import CHANGEABLE
from hsw.report import cli, report
from tests.runs import call, patience

# rliable brings absl, whose log handler closes the stream that was stderr when it was imported: pytest's.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

PROCGEN = json.loads((Path(__file__).parent / "data" / "procgen_scores.json").read_text())
GAMES = sorted(PROCGEN["ranges"])


def published(method):
    """Normalised test scores, [10 seeds, 16 games]."""
    low, high = np.array([PROCGEN["ranges"][game] for game in GAMES]).T
    return normalise(np.array([PROCGEN[method][game] for game in GAMES]).T, low, high)


def leave_run(folder, seed=1, score=100.0, algorithm="PPO", env="CartPole-v1", rows=20, steps=1000, **changes):
    """What a run that ended leaves: its training return rises to its score."""
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "quiet": True,
        "num_train_steps": steps,
        "env": {"_target_": "hsw.env.make_env", "id": env},
        "algorithm": {"_target_": f"hsw.algorithm.{algorithm}", "lr": 0.001},
        "agent": {"_target_": "hsw.agent.OnPolicyAgent", "seed": seed},
        "logger": {"_target_": "hsw.run.logger.LocalLogger"},
    }
    for key, value in changes.items():
        node, *_ = parts = key.split("__")
        if len(parts) == 1:
            config[node] = value
        else:
            config[node][parts[1]] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "versions.json").write_text(
        json.dumps({"hsw": "0.1.0", "git": "abc", "command": ["/a/hsw/train.py", "x=1 2"]})
    )
    lines = [
        {
            "step": steps * n // rows,
            "time": float(n),
            "train/episode_return": score * n / rows,
            "speed/steps_per_second": 100.0 if n == 1 else 500.0,
            "learn/policy_loss": 0.1,
        }
        for n in range(1, rows + 1)
    ]
    lines.append({"step": steps, "time": rows + 1.0, "eval/return_mean": score, "eval/return_std": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def study_of(folder, **options):
    (study,) = plain(report([folder], curves=False, reps=50, **options))["studies"]
    return study


def status(folder):
    run = read_run(folder)
    return run.status, " ".join(run.notes)


# The numbers.


@pytest.mark.parametrize(("method", "iqm"), [("ppo", 0.3150), ("daac", 0.5745)])
def test_published_procgen_scores_give_the_published_iqm(method, iqm):
    assert round(aggregate(published(method), reps=2).pop("iqm").value, 4) == iqm


@pytest.mark.parametrize("method", ["ppo", "daac"])
def test_aggregates_and_intervals_are_rliables(method):
    scores, reps = published(method), 200
    ours = aggregate(scores, reps=reps, seed=3, gamma=1.0)
    theirs = {
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "iqm": metrics.aggregate_iqm,
        "optimality_gap": metrics.aggregate_optimality_gap,
    }
    np.random.seed(3)
    values, bounds = library.get_interval_estimates(
        {"x": scores}, lambda x: np.array([function(x) for function in theirs.values()]), reps=reps
    )
    for n, name in enumerate(theirs):
        assert np.allclose(ours[name], [values["x"][n], *bounds["x"][:, n]], rtol=0, atol=1e-9), name
        assert ours[name].low < ours[name].value < ours[name].high


def test_probability_of_improvement_is_rliables():
    x, y = published("daac"), published("ppo")[:7]
    y[2, 3] = x[1, 3]  # a tie
    ours = probability_of_improvement(x, y, reps=20, seed=5)
    np.random.seed(5)
    function = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])
    values, bounds = library.get_interval_estimates({"p": [x, y]}, function, reps=20)
    assert np.allclose(ours, [values["p"][0], *bounds["p"][:, 0]], rtol=0, atol=1e-9)
    assert probability_of_improvement(y, x, reps=2).value == pytest.approx(1 - ours.value)


def test_the_bootstrap_is_repeatable_and_leaves_numpys_generator_alone():
    state = np.random.get_state()[1].copy()
    assert aggregate(published("ppo"), reps=20) == aggregate(published("ppo"), reps=20)
    assert aggregate(published("ppo"), reps=20) != aggregate(published("ppo"), reps=20, seed=1)
    assert (np.random.get_state()[1] == state).all()


def test_one_task_has_the_median_of_its_runs_and_one_run_no_interval():
    figures = aggregate(np.array([[1.0], [2.0], [9.0]]), reps=20, gamma=5.0)
    assert figures["median"].value == 2.0
    assert figures["mean"].value == 4.0
    assert figures["optimality_gap"].value == pytest.approx(5 - (1 + 2 + 5) / 3)
    single = aggregate(np.array([[3.0]]))
    assert single["iqm"] == (3.0, None, None)
    assert "optimality_gap" not in single


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_scores_that_are_no_matrix_are_refused(scores):
    with pytest.raises(ValueError, match=r"must be \[runs, tasks\]"):
        aggregate(scores)


# Which runs count.


def _laughs(first, then):
    """A few lines of YAML that stand for 9^8 values."""
    lines = (f"a{n}: &a{n} " + then.format(",".join([f"*a{n - 1}"] * 9)) for n in range(1, 9))
    return "\n".join([f"a0: &a0 {first}", *lines])


def test_a_run_that_ended_counts(tmp_path):
    assert status(leave_run(tmp_path / "a")) == ("done", "")


@pytest.mark.parametrize(
    ("damage", "expected", "note"),
    [
        (lambda run: (run / "config.yaml").write_text("a: [1,\n - :"), "damaged", "config.yaml is not YAML"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff\x00\xfe"), "damaged", "config.yaml is not YAML"),
        (lambda run: (run / "config.yaml").write_text("[1, 2]"), "damaged", "not a config"),
        (lambda run: (run / "config.yaml").write_text("a: &a {b: *a}\n"), "damaged", "config.yaml"),
        (lambda run: (run / "config.yaml").write_text("a: " + "[" * 200_000), "damaged", "config.yaml is nested"),
        (lambda run: (run / "config.yaml").write_text(_laughs("[1]", "[{}]")), "damaged", "config.yaml holds more"),
        (
            lambda run: (run / "config.yaml").write_text(_laughs("{x: 1}", "{{<<: [{}]}}")),
            "damaged",
            "config.yaml merges",
        ),
        (lambda run: (run / "config.yaml").write_text("a: &a {b: 1}\nc: {<<: *a}"), "damaged", "config.yaml merges"),
        (lambda run: (run / "config.yaml").unlink(), "missing", "no config.yaml"),
        (lambda run: (run / "metrics.jsonl").unlink(), "missing", "no metrics.jsonl"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "unfinished", "0 of 1,000 steps"),
        (lambda run: _replace_line(run, 3, '{"step": 1'), "damaged", "line 4 of metrics.jsonl"),
        (lambda run: _replace_line(run, 3, '{"step": 1}'), "damaged", "line 4"),
        (lambda run: _replace_line(run, 3, "[" * 100_000), "damaged", "line 4"),
        (lambda run: _cut(run, 1), "unfinished", "no evaluation at its end"),
        (lambda run: _cut(run, 9), "unfinished", "600 of 1,000 steps"),
        (lambda run: _tell(run, status="failed", error="boom"), "failed", "boom its metrics are complete"),
        (lambda run: _tell(run, status="interrupted"), "interrupted", ""),
        (lambda run: _tell(run, status="done"), "done", ""),
        (lambda run: (run / "status.json").write_text("{"), "done", "status.json cannot be read"),
        (lambda run: (run / "versions.json").write_text("{"), "done", "versions.json is not JSON"),
    ],
)
def test_what_is_wrong_with_a_run_is_its_status(tmp_path, damage, expected, note):
    run = leave_run(tmp_path / "a")
    damage(run)
    found, notes = status(run)
    assert (found, note in notes) == (expected, True), notes


def _lines(run):
    return (run / "metrics.jsonl").read_text().splitlines()


def _replace_line(run, number, text):
    lines = _lines(run)
    lines[number] = text
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _cut(run, lines):
    (run / "metrics.jsonl").write_text("\n".join(_lines(run)[:-lines]) + "\n")


def _tell(run, **told):
    (run / "status.json").write_text(json.dumps(told))


def test_a_torn_last_line_is_told_and_not_damage(tmp_path):
    run = leave_run(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10')
    assert status(run) == ("done", "the last line of metrics.jsonl is torn")


def test_a_last_evaluation_that_is_not_finite_is_not_replaced_by_the_one_before(tmp_path):
    run = leave_run(tmp_path / "a")
    _replace_line(run, 3, '{"step": 200, "time": 4.0, "eval/return_mean": 50.0}')
    _replace_line(run, -1, '{"step": 1000, "time": 21.0, "eval/return_mean": null}')
    assert read_run(run).score is None
    assert "no finite eval/return_mean" in study_of(tmp_path)["runs"][0]["notes"][0]


def test_a_config_is_only_data(tmp_path):
    run = leave_run(tmp_path / "a", algorithm__lr="${oc.env:HOME}")
    assert read_run(run).config["algorithm.lr"] == "${oc.env:HOME}"
    (run / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    assert status(run)[0] == "damaged"


def test_no_run_is_hidden(tmp_path):
    for seed in (1, 2, 3):
        leave_run(tmp_path / f"ppo-{seed}", seed)
    leave_run(tmp_path / "daac-1", 1, algorithm="DAAC")
    leave_run(tmp_path / "again", 2)
    _cut(leave_run(tmp_path / "cut", 4), 5)
    _replace_line(tmp_path / "cut", 9, '{"step": 500, "time": 10.0, "eval/return_mean": 50.0}')
    (leave_run(tmp_path / "broken", 5) / "config.yaml").write_text("{")
    (tmp_path / "began").mkdir()
    (tmp_path / "began" / "run.lock").touch()
    study = study_of(tmp_path)
    assert {run["run"]: run["status"] for run in study["runs"] if not run["counted"]} == {
        "began": "missing",
        "broken": "damaged",
        "cut": "unfinished",
        "ppo-2": "done",  # of the two with seed 2, the first counts
    }
    text = to_markdown(report([tmp_path], curves=False, reps=50))
    for words in ("| began |", "| broken |", "| cut |", "seed 2 is also in again", "has one seed, so no intervals"):
        assert words in text
    assert "algorithm=DAAC has the seeds 1 of 1, 2, 3" in text
    study = study_of(tmp_path, unfinished=True)
    (table,) = study["tables"]
    assert [group["seeds"] for group in table["groups"] if group["group"] == "algorithm=PPO"] == [[1, 2, 3, 4]]
    assert "1 of 5 runs did not end and count as last evaluated" in table["notes"]


def test_of_unfinished_runs_none_stands_for_one_that_ended(tmp_path):
    _cut(leave_run(tmp_path / "a", 1), 5)
    _replace_line(tmp_path / "a", 9, '{"step": 500, "time": 10.0, "eval/return_mean": 7.0}')
    leave_run(tmp_path / "b", 1, 100.0)
    _cut(leave_run(tmp_path / "c", 2), 5)
    _replace_line(tmp_path / "c", 8, '{"step": 450, "time": 9.0, "eval/return_mean": 90.0}')
    _replace_line(tmp_path / "c", 9, '{"step": 500, "time": 10.0, "eval/return_mean": null}')
    study = study_of(tmp_path, unfinished=True)
    assert [run["counted"] for run in study["runs"]] == [False, True, False]
    assert "its last evaluation has no finite eval/return_mean" in study["runs"][2]["notes"]


# Groups and tables.


def _groups(folder, **options):
    runs = [read_run(path, name=path.name) for path in next(iter(find_studies([folder]).values()))]
    groups, varied = group_runs(runs, **options)
    return [group.label for group in groups], varied


def test_what_cannot_matter_makes_no_group(tmp_path):
    leave_run(tmp_path / "a", 1, quiet=False, device="cpu", agent__tag="x", logger={"_target_": "x"})
    leave_run(tmp_path / "b", 2, device="cuda", resume="a", threads=2, observation_space={"shape": [4]})
    assert _groups(tmp_path) == (["PPO"], {})


def test_what_a_rerun_may_change_makes_no_group_but_more_steps():
    assert [key for key in CHANGEABLE if not CANNOT_MATTER.match(key)] == ["num_train_steps"]
    assert not CANNOT_MATTER.match("env.kwargs.seed")


def test_where_runs_computed_is_told(tmp_path):
    leave_run(tmp_path / "a", 1, device="cpu", threads=1)
    leave_run(tmp_path / "b", 2, device="cuda", threads=1)
    assert study_of(tmp_path)["notes"] == ["the runs had different device: cpu, cuda"]


def test_no_row_has_two_algorithms_or_environments(tmp_path):
    leave_run(tmp_path / "a", 1, 1.0, "SAC", "A-v0")
    leave_run(tmp_path / "b", 1, 1.0, "IMPALA", "B-v0")
    assert [table["groups"][0]["group"] for table in study_of(tmp_path)["tables"]] == [
        "algorithm=SAC",
        "algorithm=IMPALA",
    ]
    for seed, module in enumerate("xyz"):
        leave_run(tmp_path / "named" / module, seed, env=f"mine.{module}:Maze-v0")
    assert _groups(tmp_path / "named")[0] == [f"id=mine.{module}:Maze-v0" for module in "xyz"]


def test_a_label_has_the_fewest_keys_that_tell_groups_apart(tmp_path):
    for n, (lr, clip) in enumerate([(1, 2), (1, 3), (4, 2), (4, 3), (5, 3)]):
        leave_run(tmp_path / f"{n}", algorithm__lr=lr, algorithm__clip=clip, algorithm__copy=lr)
    labels, varied = _groups(tmp_path)
    assert labels == ["copy=1 clip=2", "copy=1 clip=3", "copy=4 clip=2", "copy=4 clip=3", "copy=5 clip=3"]
    assert list(varied) == ["algorithm.copy", "algorithm.clip", "algorithm.lr"]


def test_a_preset_that_changes_much_is_called_by_its_algorithm(tmp_path):
    leave_run(tmp_path / "a", algorithm="PPO")
    leave_run(tmp_path / "b", algorithm="DAAC", algorithm__lr=3, algorithm__value_freq=2, eval_episodes=3)
    assert _groups(tmp_path)[0] == ["algorithm=PPO", "algorithm=DAAC"]


def test_numbers_and_booleans_are_different_values(tmp_path):
    leave_run(tmp_path / "a", algorithm__x=1)
    leave_run(tmp_path / "b", algorithm__x=True)
    assert _groups(tmp_path)[0] == ["x=1", "x=true"]


def _two_tasks(folder):
    for env, scale in (("A-v0", 1), ("B-v0", 10)):
        for algorithm, score in (("PPO", 4.0), ("DAAC", 6.0)):
            for seed in (1, 2):
                # The preset gives the task, and the pair of task and algorithm, values of their own.
                path = folder / f"{env}-{algorithm}-{seed}"
                leave_run(path, seed, (score + seed) * scale, algorithm, env, algorithm__epochs=f"{env[0]}{algorithm}")


def test_environments_are_tasks_only_if_all_have_ranges(tmp_path):
    _two_tasks(tmp_path)
    apart = study_of(tmp_path, ranges={"A-v0": (0.0, 10.0)})["tables"]
    assert [table["envs"] for table in apart] == [["A-v0"], ["B-v0"]]
    assert [table["gamma"] for table in apart] == [1.0, None]
    leave_run(tmp_path / "A-v0-PPO-3", 3, 7.0, "PPO", "A-v0", algorithm__epochs="APPO")
    study = study_of(tmp_path, ranges={"A-v0": (0.0, 10.0), "B-v0": (0.0, 100.0)})
    (table,) = study["tables"]
    assert [run["notes"] for run in study["runs"] if not run["counted"]] == [["seed 3 does not count on B-v0"]]
    means = {group["group"]: group["mean"]["value"] for group in table["groups"]}
    assert means == pytest.approx({"algorithm=DAAC": 0.75, "algorithm=PPO": 0.55})
    assert [group["seeds"] for group in table["groups"]] == [[1, 2], [1, 2]]
    (pair,) = table["improvement"]
    assert (pair["group"], pair["over"], pair["value"]) == ("algorithm=PPO", "algorithm=DAAC", 0.0)


def test_a_group_that_lacks_a_task_has_no_figures_over_all(tmp_path):
    _two_tasks(tmp_path)
    for seed in (1, 2):
        (tmp_path / f"B-v0-PPO-{seed}" / "metrics.jsonl").write_text("")
    (table,) = study_of(tmp_path, ranges={"A-v0": (0.0, 10.0), "B-v0": (0.0, 100.0)})["tables"]
    (ppo,) = (group for group in table["groups"] if group["group"] == "algorithm=PPO")
    assert (ppo["seeds"], ppo["mean"], ppo["not_counted"]) == ([], None, 4)
    assert "has no seed that counts on every task" in table["notes"][0]
    assert table["improvement"] == []


def test_the_threshold_is_reached_first_by_training_or_evaluations(tmp_path):
    for seed, score in ((1, 100.0), (2, 200.0), (3, 40.0)):
        leave_run(tmp_path / str(seed), seed, score)
    (table,) = study_of(tmp_path, threshold=50.0)["tables"]
    # 50 of 100 at half of the steps, 50 of 200 at a quarter, and never: the median run is the first.
    assert table["groups"][0]["reached"] == {"runs": 2, "of": 3, "steps": 500, "seconds": 10.0}
    assert table["gamma"] == 50.0
    for seed in (1, 2, 3):
        run = tmp_path / str(seed)
        _replace_line(run, 9, f'{{"step": 500, "time": 10.0, "eval/return_mean": {seed * 20.0}}}')
    (table,) = study_of(tmp_path, threshold=50.0)["tables"]
    assert table["threshold_of"] == "evaluations"
    assert table["groups"][0]["reached"] == {"runs": 3, "of": 3, "steps": 1000, "seconds": 21.0}


def test_unequal_budgets_are_groups_and_told(tmp_path):
    leave_run(tmp_path / "a", steps=1000)
    leave_run(tmp_path / "b", steps=2000)
    study = study_of(tmp_path)
    assert list(study["varied"]) == ["num_train_steps"]
    assert "the runs had different budgets: 1,000, 2,000 steps" in study["tables"][0]["notes"]


def test_runs_of_different_code_are_told(tmp_path):
    leave_run(tmp_path / "a", 1)
    (leave_run(tmp_path / "b", 2) / "versions.json").write_text('{"hsw": "0.1.0", "git": "def"}')
    assert study_of(tmp_path)["notes"] == ["the runs had different git: abc, def"]


def test_the_preset_of_each_group_is_told_where_runs_say_it(tmp_path):
    leave_run(tmp_path / "a", 1, preset="ppo_cartpole")
    leave_run(tmp_path / "b", 2, preset="ppo_cartpole")
    assert "- Preset: ppo_cartpole.\n" in to_markdown(report([tmp_path], curves=False, reps=50))
    leave_run(tmp_path / "c", 1, preset=None, algorithm="DAAC")
    leave_run(tmp_path / "old", 2, algorithm="SAC")  # of 0.1.0, which does not say
    study = study_of(tmp_path)
    assert study["presets"] == {"algorithm=PPO": ["ppo_cartpole"], "algorithm=DAAC": ["none, general values"]}
    assert "preset" not in study["varied"]  # its values stand in the keys themselves
    text = to_markdown(report([tmp_path], curves=False, reps=50))
    assert "- Preset: algorithm=PPO: ppo_cartpole; algorithm=DAAC: none, general values.\n" in text


def test_a_resumed_run_was_made_by_its_first_command_and_says_what_changed_since(tmp_path):
    first = {"hsw": "0.1.0", "git": "abc", "command": ["/a/hsw/train.py", "x=1"]}  # as 0.1.0 told of a run
    repository = {"root": "/home", "commit": "123", "changed": True, "diff": "git-2.diff"}
    second = {
        "began": "now",
        "hsw": "0.2.0",
        "git": "abc",
        "repository": repository,
        "command": ["hsw-train", "resume=a"],
    }
    (leave_run(tmp_path / "a", 1) / "versions.json").write_text(json.dumps([first, second]))
    study = study_of(tmp_path)
    assert study["command"] == "python -m hsw.train x=1"
    assert study["versions"] == {"hsw": ["0.2.0"], "git": ["abc"], "repository": ["123 with changes"]}
    assert study["runs"][0]["notes"] == ["its sessions had different hsw: 0.1.0, 0.2.0"]


def test_each_sweep_is_a_study_and_found_at_any_depth(tmp_path):
    for study in ("multirun/one", "multirun/2026/two"):
        for job in (2, 10):
            leave_run(tmp_path / study / str(job), seed=job)
            (tmp_path / study / str(job) / "checkpoints" / "x").mkdir(parents=True)
            (tmp_path / study / str(job) / "checkpoints" / "x" / "metrics.jsonl").touch()
        (tmp_path / study / "multirun.yaml").touch()
        (tmp_path / study / "status.json").touch()
    found = find_studies([tmp_path / "multirun", tmp_path / "multirun" / "one"])
    names = {folder.name: [run.name for run in runs] for folder, runs in found.items()}
    assert names == {"one": ["2", "10"], "two": ["2", "10"]}
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "job").symlink_to(tmp_path / "multirun" / "one" / "2")
    (tmp_path / "links" / "loop").symlink_to(tmp_path / "links")
    (tmp_path / "links" / "versions.json").touch()
    (tmp_path / "multirun" / "one" / "10" / "loop").symlink_to(tmp_path)
    assert [run.name for run in find_studies([tmp_path / "links"])[tmp_path / "links"]] == ["job"]
    jobs = [tmp_path / "multirun/one/2", tmp_path / "multirun/one/10"]
    assert list(find_studies(jobs).values()) == [jobs]


# The command.


def test_the_formats_agree_and_curves_are_drawn(tmp_path):
    for seed in (1, 2):
        leave_run(tmp_path / "study" / f"a-{seed}", seed, 100.0 * seed)
        leave_run(tmp_path / "study" / f"b-{seed}", seed, 150.0, algorithm__lr="a|b$x")
    arguments = [str(tmp_path / "study"), "--threshold", "120", "--reps", "50", "--out", str(tmp_path / "out")]
    told = {name: call(*arguments, "--format", name, main=cli) for name in ("md", "csv", "json")}
    assert all(result.code == 0 and not result.err for result in told.values()), told
    data = json.loads(told["json"].out)
    rows = list(csv.DictReader(io.StringIO(told["csv"].out)))
    first = data["studies"][0]["tables"][0]["groups"][0]
    assert float(rows[0]["mean"]) == first["mean"]["value"] == 150.0
    assert [row["kind"] for row in rows] == ["group"] * 2 + ["run"] * 4
    assert "| lr=0.001 | 2 | 150.0 [100.0, 200.0] |" in told["md"].out
    assert "lr=a\\|b$x" in told["md"].out
    assert "optimality gap to 120.0" in told["md"].out
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "study").glob("*.png"))
    assert "- Command: `python -m hsw.train 'x=1 2'`." in told["md"].out
    assert first["speed"] == float(rows[0]["speed"]) == data["studies"][0]["runs"][0]["speed"] == 500.0
    written = (tmp_path / "out" / "report.md").read_text()
    assert "](curves.png)" in written
    assert written.endswith(f"--reps 50 --out {tmp_path / 'out'} --format md`.\n")


def test_bad_input_is_one_sentence(tmp_path):
    run = str(leave_run(tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    assert call(str(tmp_path / "nowhere"), main=cli).refused(2, "nowhere is not a folder")
    assert call(str(tmp_path / "empty"), main=cli).refused(2, "there is no run in")
    assert call(main=cli).refused(2, "folders")
    assert call(run, "--format", "xml", main=cli).refused(2, "--format", "xml", "csv")
    assert call(run, "--metric", "luck", main=cli).refused(2, "--metric", "success")
    assert call(run, "--normalize", "CartPole-v1=5", main=cli).refused(2, "ENV=LOW:HIGH")
    assert call(run, "--normalize", "CartPole-v1=5:5", main=cli).refused(2, "from a lower to a higher")
    assert call(run, "--normalize", "CartPole=0:5", main=cli).refused(2, "CartPole-v1")
    assert call(run, "--threshold", "nan", main=cli).refused(2, "finite")
    assert call(run, "--reps", "0", main=cli).refused(2, "at least 1")
    assert call(run, "--seed", "-1", main=cli).refused(2, "seed=-1")
    assert call(run, "--normalize", "CartPole-v1=0:1e-320", main=cli).refused(2, "from a lower to a higher")
    assert call(run, "--ranges", str(tmp_path / "x"), main=cli).refused(2, "cannot read", "No such file")
    (tmp_path / "x").write_text("[1]")
    assert call(run, "--ranges", str(tmp_path / "x"), main=cli).refused(2, "must be JSON")


def test_ranges_of_a_file_give_way_to_those_of_the_command_line(tmp_path):
    (tmp_path / "ranges.json").write_text('{"A-v0": [0, 100], "B-v0": [0, 200], "elsewhere": [5, 10]}')
    _two_tasks(tmp_path / "study")
    arguments = (str(tmp_path / "study"), "--no-curves", "--ranges", str(tmp_path / "ranges.json"), "--format", "json")
    (table,) = json.loads(call(*arguments, "--normalize", "B-v0=0:1e3", main=cli).out)["studies"][0]["tables"]
    assert table["ranges"] == {"A-v0": [0.0, 100.0], "B-v0": [0.0, 1000.0]}
    typed = call(*arguments, "--normalize", "B-v1=0:1", main=cli)
    assert typed.refused(2, "no run is on B-v1")


def test_what_cannot_be_written_is_told_and_the_tables_are_there(tmp_path):
    leave_run(tmp_path / "study" / "a")
    (tmp_path / "study" / "curves.png").mkdir()
    result = call(str(tmp_path / "study"), main=cli)
    assert result.code == 0
    assert "- Note: the curves could not be written to" in result.out
    assert "| PPO | 1 |" in result.out
    (tmp_path / "file").touch()
    assert call(str(tmp_path / "study"), "--out", str(tmp_path / "file"), main=cli).refused(2, "cannot make the folder")


def test_curves_go_only_where_runs_were_named(tmp_path):
    one, other = (leave_run(tmp_path / "study" / name, seed) for seed, name in enumerate("ab"))
    (study,) = plain(report([one], reps=50))["studies"]
    assert study["curves"] == str(one / "curves.png")
    (study,) = plain(report([one, other], reps=50))["studies"]
    assert (study["curves"], study["notes"][0][:30]) == (None, "no curves were drawn beside si")
    assert not (tmp_path / "study" / "curves.png").exists()


def test_text_of_runs_is_neither_markup_nor_a_formula(tmp_path):
    for seed in (1, 2):
        leave_run(tmp_path / "co$t^$" / f"=1+{seed}", seed, env=f"<b>*x*`\x1b[2J{seed}")
    data = report([tmp_path / "co$t^$"], reps=50)
    text = to_markdown(data)
    assert "\\<b>\\*x\\*\\` [2J1: return" in text
    assert "\x1b" not in text + to_csv(data)
    assert [row["run"] for row in csv.DictReader(io.StringIO(to_csv(data)))][2:] == ["'=1+1", "'=1+2"]


def test_a_hundred_runs_take_less_than_twenty_seconds(tmp_path):
    for n in range(20):
        for seed in range(5):
            leave_run(tmp_path / f"{n}-{seed}", seed, 100.0 + n + seed, rows=500, steps=100_000, algorithm__lr=n)
    start = time.monotonic()
    data = report([tmp_path], threshold=60.0)
    for render in (to_markdown, to_csv, to_json):
        render(data)
    assert time.monotonic() - start < patience(19)
    assert len(data.studies[0].tables[0].groups) == 20
