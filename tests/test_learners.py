"""Several learners of one run, by the command line: one folder, one config, checkpoints of all, and an exact resume."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from hsw.run.checkpoint import list_checkpoints, read_state, signed
from tests.runs import (
    ROOT,
    Result,
    call,
    differences,
    finish,
    newest,
    rows,
    run_dir,
    start,
    tiny_run,
    wait_for,
    without_times,
)

LEARNERS = ("learners=2",)
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hsw.train")


def command(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return finish(start(*LEARNERS, *arguments, env=env), 120)


def torchrun(*arguments: str) -> Result:
    return finish(start(*arguments, program=TORCHRUN), 120)


def parts(folder: Path, ranks: int = 2) -> list[dict[str, Any]]:
    """Every rank's state in the newest checkpoint, without how long it took."""
    path = folder / "checkpoints" / f"{list_checkpoints(folder / 'checkpoints')[-1]:06d}"
    states = [read_state(path, rank=rank)[0] for rank in range(ranks)]
    states[0].pop("logger")
    return states


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("learners") / "run"
    done = command(*tiny_run("ppo"), "checkpoint_interval=40", "quiet=false", run_dir(folder))
    assert done.code == 0, done.err
    assert done.err.count("done  ") == 1, done.err
    return folder


def test_two_learners_leave_one_folder_with_the_parts_of_both(trained: Path) -> None:
    left = {path.name for path in trained.iterdir()}
    files = {"choices.json", "config.yaml", "metrics.jsonl", "run.lock", "status.json", "train.log", "versions.json"}
    assert left == {"best", "checkpoints", *files}
    assert "learners: 2" in (trained / "config.yaml").read_text()
    manifest = json.loads(next(trained.glob("checkpoints/0*/manifest.json")).read_text())
    names = ["state-1.json", "state.json", "tensors-1.safetensors", "tensors.safetensors"]
    assert sorted(manifest["sha256"]) == names
    assert (manifest["format"], manifest["ranks"]) == (3, 2)
    first, second = parts(trained)
    assert set(first) - set(second) == {"policy", "algorithm"}
    assert differences(first["env"], second["env"]) != []  # of seeds of their own
    assert first["step"] == second["step"] == rows(trained)[-1]["step"] >= 128


def test_what_several_learners_have_learnt_is_used_by_one_process(trained: Path, tmp_path: Path) -> None:
    from hsw import eval as evaluation

    assert call(str(trained), "--episodes", "2", main=evaluation.cli).code == 0
    small = ("learners=1", "num_train_steps=64")
    again = call(f"from={trained}", *small, run_dir(tmp_path / "again"))
    assert again.code == 0, again.err
    begun = call(*tiny_run("ppo"), *small, f"init_from={trained}", run_dir(tmp_path / "begun"))
    assert begun.code == 0, begun.err


def test_a_resume_with_another_number_of_learners_is_refused(trained: Path, monkeypatch: Any) -> None:
    assert call(f"resume={trained}", "learners=3").refused(2, "keeps its learners", "num_train_steps")
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    refused = call(f"resume={trained}")
    assert refused.refused(2, "has 2 learners", "torchrun started 3", "num_train_steps")


@pytest.mark.parametrize(("given", "words"), [("learners=0", "in [1, "), ("learners=two", "whole number")])
def test_a_number_of_learners_that_is_none_is_refused(given: str, words: str, tmp_path: Path) -> None:
    assert call(given, run_dir(tmp_path / "run")).refused(2, "learners", words)


def test_what_torchrun_cannot_start_is_refused_in_a_sentence(monkeypatch: Any, tmp_path: Path) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert call("learners=4", run_dir(tmp_path / "run")).refused(2, "learners=4", "torchrun started 2")
    assert call("--multirun", "seed=1,2", f"hydra.sweep.dir={tmp_path}").refused(2, "sweep", "learners=2")
    assert list(tmp_path.iterdir()) == []


def test_from_python_a_run_has_one_learner(tmp_path: Path) -> None:
    import hsw
    from hsw.errors import ConfigError

    with pytest.raises(ConfigError, match=r"hsw\.train learners=2"):
        hsw.make(hsw.compose(["learners=2"]), tmp_path / "run")


@pytest.mark.slow
def test_the_damaged_part_of_one_rank_costs_all_of_them_that_checkpoint(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    older, newest_one = list_checkpoints(run / "checkpoints")[-2:]
    (run / "checkpoints" / f"{newest_one:06d}" / "state-1.json").write_text("{}")
    resumed = command_of_folder(run, "num_train_steps=240")
    assert resumed.code == 0, resumed.err
    log = (run / "train.log").read_text()
    assert "rank 1: checkpoint" in log
    assert "state-1.json does not match its checksum" in log
    assert f"{newest_one:06d}" in log
    assert older < newest_one


def test_a_folder_of_several_learners_whose_config_says_one_is_not_taken(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("learners: 2", "learners: 1"))
    assert call(f"resume={run}", "num_train_steps=240").refused(7, "is of 2 learners")


@pytest.mark.slow
def test_a_part_that_was_signed_again_is_held_against_its_template(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for path in (run / "checkpoints").glob("0*"):
        (path / "state-1.json").write_text((path / "state-1.json").read_text().replace('"episodes":', '"evil":', 1))
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["sha256"]["state-1.json"] = hashlib.sha256((path / "state-1.json").read_bytes()).hexdigest()
        (path / "manifest.json").write_text(json.dumps(signed(manifest)))
    refused = command_of_folder(run, "num_train_steps=240")
    assert refused.code == 7, refused.err
    assert "hsw: rank 1: the saved state has no episodes" in refused.err.splitlines()


@pytest.mark.slow
def test_a_mistake_on_torchruns_command_line_is_told_once_and_leaves_no_folder(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    done = torchrun(*tiny_run("ppo"), "algorithm.learning_rat=3", run_dir(run))
    told = [line for line in done.err.splitlines() if line.startswith("hsw: ")]
    assert len(told) == 1, done.err
    assert "learning_rat" in told[0]
    assert "exitcode  : 2" in done.err
    assert list(tmp_path.iterdir()) == []


def command_of_folder(run: Path, *arguments: str) -> Result:
    return finish(start(f"resume={run}", "allow=[tests]", *arguments), 120)


# -- slow: exactness --------------------------------------------------------------------------------------------------

STOPS = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": -9}
LONG = ("num_train_steps=1200", "checkpoint_interval=60", "eval_interval=400")


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "ranks"), [("ppo", 2), ("daac", 2), ("sac", 2), ("her_sac", 2), ("ppo", 3)])
def test_learners_stopped_and_killed_are_those_that_never_were(recipe: str, ranks: int, tmp_path: Path) -> None:
    features = ("env.normalize_obs=true", "env.normalize_reward=true") if recipe == "ppo" else ()
    arguments = (*tiny_run(recipe), *LONG, *features)
    whole, run = tmp_path / "whole", tmp_path / "run"
    learners = f"learners={ranks}"
    assert finish(start(learners, *arguments, run_dir(whole)), 120).code == 0
    process = start(learners, *arguments, run_dir(run))
    for count, (name, code) in enumerate(STOPS.items(), 1):
        checkpoints = run / "checkpoints"
        wait_for(lambda: process.poll() is not None or step_of(run) >= 250 * count, 120)  # noqa: B023
        assert process.poll() is None, process.communicate()
        os.kill(process.pid, signal.Signals[name])
        assert finish(process).code == code
        assert list_checkpoints(checkpoints)
        process = start(f"resume={run}", "allow=[tests]")
    done = finish(process, 120)
    assert done.code == 0, done.err
    assert "not exact" not in (run / "train.log").read_text()
    assert without_times(run) == without_times(whole)
    assert differences(parts(run, ranks), parts(whole, ranks)) == []


def step_of(run: Path) -> int:
    found = list_checkpoints(run / "checkpoints") if (run / "checkpoints").is_dir() else []
    try:
        path = run / "checkpoints" / f"{found[-1]:06d}" / "manifest.json" if found else None
        return int(json.loads(path.read_text())["meta"]["step"]) if path else 0
    except (OSError, ValueError):
        return 0


@pytest.mark.slow
def test_impala_with_two_learners_is_stopped_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*LEARNERS, *tiny_run("impala"), "num_train_steps=200000", "checkpoint_interval=200", run_dir(run))
    wait_for(lambda: process.poll() is not None or step_of(run) >= 200, 120)
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 143
    stopped = step_of(run)
    resumed = command_of_folder(run, f"num_train_steps={stopped + 400}")
    assert resumed.code == 0, resumed.err
    assert newest(run)["step"] >= stopped + 400


@pytest.mark.slow
def test_torchrun_starts_what_learners_starts(tmp_path: Path) -> None:
    arguments = (*tiny_run("ppo"), "checkpoint_interval=40")
    one, other = tmp_path / "one", tmp_path / "other"
    assert command(*arguments, run_dir(one)).code == 0
    before = set(ROOT.iterdir())
    done = torchrun(*arguments, run_dir(other))
    assert done.code == 0, done.err
    assert set(ROOT.iterdir()) - before <= {ROOT / "__pycache__"}
    assert without_times(one) == without_times(other)
    assert differences(parts(one), parts(other)) == []
    assert (one / "config.yaml").read_text() == (other / "config.yaml").read_text()
    done = torchrun(f"resume={other}")
    assert done.code == 0, done.err
    assert "is done" in done.err
    resumed = torchrun(f"resume={other}", "num_train_steps=200")
    assert resumed.code == 0, resumed.err
    assert newest(other)["step"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_each_job_of_a_sweep_has_its_learners(launcher: str, tmp_path: Path) -> None:
    parallel = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
    sweep = ("--multirun", f"hydra/launcher={launcher}", *parallel, "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    done = command(*tiny_run("ppo"), *sweep)
    assert done.code == 0, done.out + done.err
    jobs = sorted((tmp_path / "sweep").glob("*/config.yaml"))
    assert len(jobs) == 2
    assert all(len(parts(job.parent)) == 2 for job in jobs)
    alone = tmp_path / "alone"
    assert command(*tiny_run("ppo"), "seed=2", run_dir(alone)).code == 0
    assert differences(parts(alone), parts(jobs[1].parent)) == []
    again = command(*tiny_run("ppo"), *sweep)
    assert again.code == 0
    assert again.out.count("done before") == 2


@pytest.mark.slow
def test_ranks_of_different_configs_are_refused_naming_the_key(tmp_path: Path) -> None:
    program = tmp_path / "differing.py"
    program.write_text(
        "import os, sys\nimport hsw.train\n"
        "sys.argv += ['seed=' + os.environ['RANK'], 'algorithm.lr=0.' + '1' * (1 + int(os.environ['RANK']))]\n"
        "if __name__ == '__main__':\n    hsw.train.cli()\n"
    )
    run = tmp_path / "runs" / "run"
    program_of = ("-m", "torch.distributed.run", "--nproc-per-node", "2", str(program))
    done = finish(start(*tiny_run("ppo"), run_dir(run), program=program_of), 120)
    assert done.code == 1  # torchrun's own
    told = [line for line in done.err.splitlines() if line.startswith("hsw: ")]
    assert told == ["hsw: rank 1 was started with another config: seed is 1 there, and 0 on rank 0"]
    assert "exitcode  : 2" in done.err
    assert not run.parent.exists()


def test_the_module_of_the_other_learners_says_what_it_is() -> None:
    done = finish(start(program=("-m", "hsw.learners"), forked=False))
    assert done.refused(2, "python -m hsw.train learners=")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_learners_solve_cartpole_also_when_they_are_killed_on_the_way(seed: int, tmp_path: Path) -> None:
    """The preset of one learner, its eight environments divided between two."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    arguments = (f"seed={seed}", "env.num_envs=4", "checkpoint_interval=10000", "device=cpu", "quiet=true")
    done = finish(start(*LEARNERS, *arguments, run_dir(whole)), 1200)
    assert done.code == 0, done.err
    process = start(*LEARNERS, *arguments, run_dir(run))
    wait_for(lambda: process.poll() is not None or step_of(run) >= 20000, 1200)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process).code == -9
    done = finish(start(f"resume={run}"), 1200)
    assert done.code == 0, done.err
    scores = [row["eval/return_mean"] for row in rows(run) if "eval/return_mean" in row]
    assert scores[-1] >= 475
    assert without_times(run) == without_times(whole)
    assert differences(parts(run), parts(whole)) == []
