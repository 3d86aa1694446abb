"""A run folder is data: nothing in it executes, and nothing outside it is opened, deleted or written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from omegaconf import OmegaConf

from hsw import eval as evaluation
from hsw.directory import Directory, LinkError
from hsw.errors import ConfigError, CorruptError
from hsw.run.checkpoint import list_checkpoints, load_newest, read_state, signed
from hsw.run.folder import FolderLostError, RunFolder
from hsw.run.paste import eval_command, resume_command
from tests.runs import TINY, call, newest, patience, run_dir, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert call(*tiny("sac"), "env=pendulum", "env.num_envs=2", "checkpoint_interval=40", run_dir(folder)).code == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's with files, which must stay as they are."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    (folder / ("0" * 64)).write_text("precious")
    (folder / "deep").mkdir()
    (folder / "deep" / "000001").mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def evaluate(*arguments: str) -> Any:
    """The command hsw-eval."""
    return call(*arguments, main=evaluation.cli)


# -- links -----------------------------------------------------------------------------------------------------------

FILES = ("metrics.jsonl", "metrics.csv", "run.lock", "train.log", "status.json", "config.yaml", "versions.json")
FOLDERS = ("checkpoints", "checkpoints/rows", "checkpoints/000003", "best", "tensorboard", "wandb")


def put_link(path: Path, target: Path, hard: bool = False) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.link(target, path) if hard else path.symlink_to(target)


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_place_of_a_file_is_refused_and_what_it_leads_to_is_left_alone(
    name: str, run: Path, outside: Path
) -> None:
    put_link(run / name, outside / "precious")
    before = contents(outside)
    assert call(f"resume={run}", "num_train_steps=160").refused(7, name, "link")
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.lock", "train.log"])
def test_a_hard_link_in_place_of_a_file_that_is_written_is_refused(name: str, run: Path, outside: Path) -> None:
    put_link(run / name, outside / "precious", hard=True)
    before = contents(outside)
    assert call(f"resume={run}", "num_train_steps=160").refused(7, name, "hard link")
    assert contents(outside) == before


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("to", ["", "deep"])
def test_a_link_in_place_of_a_folder_is_refused_and_what_is_in_it_is_left_alone(
    name: str, to: str, run: Path, outside: Path
) -> None:
    put_link(run / name, outside / to)
    before = contents(outside)
    assert call(f"resume={run}", "num_train_steps=160", "logger=tensorboard").refused(7, Path(name).name, "link")
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log", "config.yaml", "checkpoints/000004/state.json"])
def test_a_pipe_in_place_of_a_file_does_not_hold_anybody_up(name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    if name.startswith("checkpoints"):
        shutil.rmtree(run / "checkpoints" / "000003")
    assert call(f"resume={run}", "num_train_steps=160").refused(7, Path(name).name)


def test_a_run_folder_that_is_reached_by_a_link_goes_on(run: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(run)
    resumed = call(f"resume={tmp_path / 'here'}", "num_train_steps=160")
    assert resumed.code == 0, resumed.err
    evaluated = evaluate(str(tmp_path / "here"), "--episodes", "1")
    assert evaluated.code == 0, evaluated.err


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints", "checkpoints/rows", "checkpoints/000004/state.json"])
def test_an_evaluation_follows_no_link(name: str, run: Path, outside: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000003")
    moved = outside / "moved"
    (run / name).rename(moved)
    put_link(run / name, moved)
    result = evaluate(str(run), "--episodes", "1")
    assert result.code == 0 if name.endswith("rows") else result.refused(7, "link")  # an evaluation reads no rows


def test_a_step_that_is_a_path_leads_nowhere(run: Path, tmp_path: Path) -> None:
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps(signed({**manifest, "meta": {**manifest["meta"], "step": "/../../X"}})))
    assert evaluate(str(run), "--episodes", "1", "--video").refused(7, "step")
    assert not list(tmp_path.glob("X*"))


def test_a_video_replaces_a_link_and_does_not_follow_it(tmp_path: Path, outside: Path) -> None:
    import numpy as np

    from hsw.agent.video import Recorder

    run = tmp_path / "run"
    run.mkdir()
    for suffix in ("mp4", "gif"):
        put_link(run / f"step-1.{suffix}", outside / "precious")
    recorder = Recorder()
    recorder.frames = [np.zeros((64, 64, 3), np.uint8)] * 2
    path = recorder.write(run / "step-1")
    assert path.parent == run
    assert path.stat().st_size > 100
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["checkpoints/rows", "metrics.jsonl", "best", "train.log", ""])
def test_a_sweep_does_not_follow_a_link_in_a_job(name: str, tmp_path: Path, outside: Path) -> None:
    sweep = ("--multirun", *TINY, "num_train_steps=32", "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    job = tmp_path / "sweep" / "seed-1"
    (job / name).parent.mkdir(parents=True, exist_ok=True)
    (job / name).symlink_to(outside / "precious" if "." in name else outside)
    before = contents(outside)
    assert call(*sweep).code in (2, 6, 7)
    assert contents(outside) == before


def test_a_study_does_not_follow_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "sweep").mkdir()
    put_link(tmp_path / "sweep" / "multirun.yaml", outside / "precious")
    sweep = ("--multirun", *TINY, "num_train_steps=32", "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert call(*sweep).refused(7, "multirun.yaml", "link")
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_a_name_that_is_a_path_is_none(name: str, tmp_path: Path) -> None:
    with Directory.open(tmp_path) as directory, pytest.raises(LinkError):
        directory.read(name)


def test_only_what_is_called_as_a_checkpoint_is_one(run: Path) -> None:
    for name in ("٣٣٣٣٣٣", "0000004", "-00001", "1e6", "000004.bak"):
        (run / "checkpoints" / name).mkdir()
    assert list_checkpoints(run / "checkpoints") == [3, 4]


# -- whose folder it is ----------------------------------------------------------------------------------------------


def taken_away(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()


def unlocked(folder: Path) -> None:
    (folder / "run.lock").unlink()


@pytest.mark.parametrize("loss", [taken_away, replaced, unlocked])
def test_a_folder_that_is_lost_is_noticed_at_the_next_write(loss: Callable[[Path], None], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check()
    loss(tmp_path / "run")
    with pytest.raises(FolderLostError, match="while this run wrote into"):
        folder.check()
    folder.close()


@pytest.mark.parametrize("loss", [taken_away, unlocked])
def test_a_run_that_lost_its_folder_ends_with_6_and_says_so(
    loss: Callable[[Path], None], tmp_path: Path, monkeypatch: Any
) -> None:
    from hsw.run.services import Run

    saved: list[int] = []
    save = Run.save

    def then_lose(self: Run, *args: Any, **kwargs: Any) -> None:
        save(self, *args, **kwargs)
        if not saved:
            loss(tmp_path / "run")
        saved.append(1)

    monkeypatch.setattr(Run, "save", then_lose)
    result = call(*TINY, "num_train_steps=2000", "checkpoint_interval=64", run_dir(tmp_path / "run"))
    assert result.code == 6
    assert "while this run wrote into" in result.err
    assert len(saved) == 1


LOCKLESS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EIO)


@pytest.fixture
def lockless(monkeypatch: Any) -> Callable[[int], None]:
    """What takes flock away, as some file systems do, with an error number."""

    def take(number: int) -> None:
        def no_locks(*args: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", no_locks)

    return take


@pytest.mark.parametrize("number", LOCKLESS)
def test_without_flock_a_file_keeps_others_out(number: int, lockless: Any, tmp_path: Path, caplog: Any) -> None:
    lockless(number)
    first = RunFolder(tmp_path)
    assert os.strerror(number) in caplog.text
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on "):
        RunFolder(tmp_path)
    first.check()
    first.close()
    assert not (tmp_path / "run.owner").exists()
    second = RunFolder(tmp_path)
    (tmp_path / "run.owner").unlink()
    with pytest.raises(FolderLostError):
        second.check()
    second.close()


@pytest.mark.parametrize(
    ("pid", "since"),
    [(2**22 + 1, ""), (2**22 + 1, " since 5"), (os.getpid(), " since 5")],
    ids=["gone", "gone, told since when", "taken by another"],
)
def test_without_flock_an_owner_that_has_ended_leaves_the_folder_free(
    pid: int, since: str, lockless: Any, tmp_path: Path
) -> None:
    lockless(errno.ENOLCK)
    (tmp_path / "run.owner").write_text(f"{pid} on {socket.gethostname()}{since}")  # also where another has its id
    RunFolder(tmp_path).close()


@pytest.mark.parametrize(
    "owner",
    ["", "7", "x on y", f"{2**22 + 1} on another-host", f"{os.getpid()} on {socket.gethostname()}"],
    ids=["none", "no host", "no number", "another host's", "a living one's"],
)
def test_without_flock_an_owner_of_whom_nothing_is_known_is_left_alone(
    owner: str, lockless: Any, tmp_path: Path
) -> None:
    lockless(errno.ENOLCK)
    (tmp_path / "run.owner").write_text(owner)
    with pytest.raises(ConfigError, match=r"if that has ended, delete .*run\.owner"):
        RunFolder(tmp_path)


def test_a_run_on_a_file_system_without_flock_ends_well_and_resumes(lockless: Any, tmp_path: Path) -> None:
    lockless(errno.ENOTSUP)
    first = call(*TINY, "num_train_steps=32", run_dir(tmp_path / "run"))
    assert first.code == 0, first.err
    assert "cannot be locked" in first.out + (tmp_path / "run" / "train.log").read_text()
    assert call(f"resume={tmp_path / 'run'}", "num_train_steps=64").code == 0


# -- the manifest ----------------------------------------------------------------------------------------------------


def test_all_of_the_manifest_is_checksummed(run: Path) -> None:
    path = run / "checkpoints" / "000004" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["meta"]["step"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorruptError, match=r"manifest\.json does not match its checksum"):
        read_state(path.parent)
    assert len(load_newest(path.parent.parent).complaints) == 1
    path.write_text(json.dumps(signed(manifest)))
    read_state(path.parent)


@pytest.mark.parametrize("key", ["format", "meta", "sha256", "rows", "checksum", "more"])
def test_a_manifest_has_its_keys_and_no_others(key: str, run: Path) -> None:
    path = run / "checkpoints" / "000004" / "manifest.json"
    manifest = json.loads(path.read_text())
    if manifest.pop(key, None) is None:
        manifest[key] = 1
    path.write_text(json.dumps(manifest if key == "checksum" else signed(manifest)))
    with pytest.raises(CorruptError, match="is damaged"):
        read_state(path.parent)


# -- what a stored config may name ------------------------------------------------------------------------------------

EVIL = """
import os, pathlib
pathlib.Path(os.environ["BOMB"]).write_text("exploded")
import gymnasium as gym
class Evil(gym.Env):
    observation_space = gym.spaces.Box(0.0, 1.0, (4,))
    action_space = gym.spaces.Discrete(2)
gym.register("Evil-v0", entry_point="evil:Evil")
def run(*args, **kwargs):
    raise SystemExit(66)
"""


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """A module evil that leaves a file behind if it is imported."""
    place = tmp_path / "evil"
    place.mkdir()
    (place / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    yield tmp_path / "exploded"
    sys.modules.pop("evil", None)
    gym.registry.pop("Evil-v0", None)


@pytest.fixture(scope="module")
def finished_ppo(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert call(*TINY, "num_train_steps=32", run_dir(folder)).code == 0
    return folder


@pytest.fixture
def ppo_run(finished_ppo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_ppo, tmp_path / "ppo"))


ARGS = {"_target_": "hsw.env.make_env", "_args_": ["evil:Evil-v0"]}
STORED: dict[str, dict[str, Any]] = {
    "args": {"env": ARGS},
    "args of a partial": {"env": {**ARGS, "_partial_": True}},
    "nested args": {"env.eval_kwargs": {"x": ARGS}},
    "args in a list": {"env.kwargs": {"x": [[ARGS]]}},
    "recursive": {"env.kwargs": {"_recursive_": False}},
    "partial": {"env._partial_": "${oc.env:HOME}"},
    "convert": {"env._convert_": "ALL"},
    "underscore": {"env._id": "evil:Evil-v0"},
    "whitelist": {"env._execution_whitelist_": ["*"]},
    "late interpolation": {
        "network._target_": "${env.eval_kwargs.t.${oc.select:observation_space.type,none}}",
        "env.eval_kwargs": {"t": {"Box": "evil.run", "none": "hsw.network.ActorCritic"}},
    },
    "environment": {"tag": "${oc.env:HOME}"},
    "id": {"env.id": "evil:Evil-v0"},
    "native id": {"env.id": "evil:Evil-v0", "env.backend": "native"},
    "async id": {"env.id": "evil:Evil-v0", "env.backend": "async"},
    "id in kwargs": {"env.kwargs": {"env_id": "evil:Evil-v0"}},
    "id deep in kwargs": {"env.eval_kwargs": {"a": [{"b": "evil:Evil"}]}},
    "id as a key": {"env.kwargs": {"evil:Evil": 1}},
    "another environment": {"env.kwargs": {"x": {"_target_": "hsw.env.make_env", "id": "evil:Evil-v0"}}},
    "private function": {"algorithm._target_": "hsw.config.targets._locate"},
    "private of a room": {"env._target_": "hsw.env.make._import"},
    "not exported": {"storage._target_": "hsw.run.checkpoint.load_newest"},
    "class method": {"storage._target_": "hsw.storage.RolloutStorage.extras"},
    "module of torch": {"network.encoder": {"_target_": "torch.nn.modules.module.Module"}},
    "torch's functions": {"network.encoder": {"_target_": "torch.nn.init.trunc_normal_"}},
    "wrapper that writes": {
        "env.wrappers": [{"_target_": "gymnasium.wrappers.RecordVideo", "_partial_": True, "video_folder": "evil"}]
    },
    "gymnasium.make": {"env.kwargs": {"x": {"_target_": "gymnasium.make", "id": "evil:Evil-v0"}}},
    "allow": {"allow": ["evil"], "algorithm._target_": "evil.run"},
    "a number as a target": {"storage._target_": 3},
    "a target that is a list": {"storage._target_": ["hsw.storage.RolloutStorage"]},
}


@pytest.mark.parametrize("name", STORED)
def test_a_stored_config_executes_nothing(name: str, ppo_run: Path, bomb: Path) -> None:
    config = OmegaConf.load(ppo_run / "config.yaml")
    for key, value in STORED[name].items():
        OmegaConf.update(config, key, value, merge=not isinstance(value, dict), force_add=True)
    OmegaConf.save(config, ppo_run / "config.yaml")
    assert call(f"resume={ppo_run}", "num_train_steps=64").refused(7)
    assert evaluate(str(ppo_run), "--episodes", "1").refused(7)
    assert not bomb.exists()


def test_what_is_checked_is_what_is_built(tmp_path: Path, bomb: Path) -> None:
    """Also of a command line: a target that changes once the spaces are known would be built unchecked."""
    late = "network._target_=${env.eval_kwargs.t.${oc.select:observation_space.type,none}}"
    kinds = ("+env.eval_kwargs.t.Box=evil.run", "+env.eval_kwargs.t.none=hsw.network.ActorCritic")
    result = call(*TINY, late, *kinds, run_dir(tmp_path / "run"))
    assert result.code in (0, 2), result.err
    assert not bomb.exists()


@pytest.mark.parametrize("word", ["_args_=[1]", "_recursive_=false", "_hidden=1", "_partial_=3", "_convert_=some"])
def test_other_words_of_hydra_are_refused_at_the_start_of_a_run(word: str, tmp_path: Path) -> None:
    assert call(*TINY, f"+env.{word}", run_dir(tmp_path / "run")).refused(2, "env." + word.partition("=")[0])


def test_a_yaml_cannot_trust_a_package(tmp_path: Path, bomb: Path) -> None:
    (tmp_path / "conf" / "algorithm").mkdir(parents=True)
    (tmp_path / "conf" / "pair").mkdir()
    (tmp_path / "conf" / "algorithm" / "evil.yaml").write_text("_target_: evil.run\n")
    (tmp_path / "conf" / "pair" / "evil.yaml").write_text("# @package _global_\nallow: [evil]\n")
    given = ("--config-dir", str(tmp_path / "conf"), *TINY[:-2], "algorithm=evil", "pair=evil")
    assert call(*given, run_dir(tmp_path / "run")).refused(2, "evil.run is not allowed")
    assert not bomb.exists()
    assert call(*given, "allow=[evil]", run_dir(tmp_path / "run")).code != 0
    assert bomb.exists()


def test_a_study_cannot_trust_a_package(tmp_path: Path, bomb: Path) -> None:
    study = tmp_path / "conf" / "experiments" / "evil.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper: {params: {allow: '[evil]', seed: '1,2'}}\n"
    )
    sweep = ("--config-dir", str(tmp_path / "conf"), "experiments=evil", *TINY, f"hydra.sweep.dir={tmp_path / 's'}")
    assert call(*sweep).refused(2, "allow")


BOMBS = {
    "aliases": "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9) if n else 1}]\n" for n in range(9)),
    "depth": "a: " + "[" * 100_000,
    "depth of mappings": "".join(" " * n + "a:\n" for n in range(3000)),
    "itself": "a: &a [*a]\n",
    "size": "a: '" + "x" * 2**23 + "'\n",
    "number": "a: " + "9" * 100_000,
    "tag": "a: !!python/object/apply:os.system ['true']\n",
    "no mapping": "- 1\n",
    "two documents": "a: 1\n---\nb: 1\n",
    "keys": "1: 2\nnull: 3\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_of_yaml_is_bounded(name: str, ppo_run: Path) -> None:
    (ppo_run / "config.yaml").write_text(BOMBS[name])
    began = time.monotonic()
    assert call(f"resume={ppo_run}", "num_train_steps=64").refused(7, "config")
    assert evaluate(str(ppo_run), "--episodes", "1").refused(7, "config")
    assert time.monotonic() - began < patience(4)


def test_legitimate_targets_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    wrapper = "env.wrappers=[{_target_: gymnasium.wrappers.TimeLimit, _partial_: true, max_episode_steps: 7}]"
    result = call(*TINY, wrapper, run_dir(run))
    assert result.code == 0, result.err
    resumed = call(f"resume={run}", "num_train_steps=160")
    assert resumed.code == 0, resumed.err


# -- one run, one folder -----------------------------------------------------------------------------------------------


def told_ids(run: Path) -> set[str]:
    metas = [json.loads(path.read_text())["meta"]["run"] for path in run.glob("*/0*/manifest.json")]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {json.loads((run / "status.json").read_text())["run"], rows[0]["run"], *metas}


def test_a_run_has_an_id_that_its_sessions_share_and_no_other_run_has(run: Path, ppo_run: Path) -> None:
    (own,) = told_ids(run)
    assert call(f"resume={run}", "num_train_steps=160").code == 0
    assert told_ids(run) == {own}
    assert told_ids(ppo_run).isdisjoint({own})


@pytest.mark.parametrize("part", ["checkpoints", "best", "metrics.jsonl"])
def test_parts_of_another_run_are_refused(part: str, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    done = call(*tiny("sac"), "env=pendulum", "env.num_envs=2", "checkpoint_interval=40", run_dir(other))
    assert done.code == 0, done.err
    shutil.rmtree(run / part) if (run / part).is_dir() else (run / part).unlink()
    (other / part).rename(run / part)
    before = contents(run)
    assert call(f"resume={run}", "num_train_steps=160").refused(7, "different runs")
    assert {path: content for path, content in contents(run).items() if "run.lock" not in path} == {
        path: content for path, content in before.items() if "run.lock" not in path
    }


def test_a_folder_of_before_ids_is_accepted_and_gets_one(tmp_path: Path) -> None:
    run = Path(shutil.copytree(Path(__file__).parents[1] / "data" / "runs-0.1.0" / "ppo", tmp_path / "run"))
    resumed = call(f"resume={run}", "num_train_steps=300", "allow=[tests]")
    assert resumed.code == 0, resumed.err
    assert len({json.loads((run / "status.json").read_text())["run"]}) == 1


def test_a_run_does_not_begin_in_the_folder_of_another(ppo_run: Path) -> None:
    before = contents(ppo_run)
    assert call(*TINY, "seed=7", run_dir(ppo_run)).refused(2, "holds a run already", f"resume={ppo_run}")
    assert {path for path in before if before[path] != contents(ppo_run).get(path)} <= {str(ppo_run / "run.lock")}
    shutil.rmtree(ppo_run / "checkpoints")  # it was killed before its first
    assert call(*TINY, "seed=7", run_dir(ppo_run)).refused(2, "holds a run already")


ODD = (
    "a=b",
    "a,b",
    "a[b]",
    "it's",
    "~a",
    "a b",
    'a"b',
    "\u00e9\u65e5",
    "${a}",
    "a$b",
    "-a",
    "a\\b",
    "#a",
    "a;b&c",
    "a\\",
    "a\nb",
    " a ",
    "+a",
)


@pytest.mark.parametrize("name", ODD)
def test_a_folder_may_have_any_name_and_what_is_printed_can_be_pasted(name: str, ppo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "odd" / name
    run.parent.mkdir()
    ppo_run.rename(run)
    command = shlex.split(resume_command(run))
    assert command[:3] == ["python", "-m", "hsw.train"]
    for steps, arguments in ((64, command[3:]), (96, [f"resume={run}"])):
        resumed = call(*arguments, f"num_train_steps={steps}")
        assert resumed.code == 0, resumed.err
        assert newest(run)["step"] >= steps
    assert [path.name for path in run.parent.iterdir()] == [name]
    evaluated = evaluate(*shlex.split(eval_command(run))[3:], "--episodes", "1")
    assert evaluated.code == 0, evaluated.err


@pytest.mark.parametrize("name", ["a=b", "a,b", "a[b]", "it's", "~a", "\u00e9", "a b", "a\\", "a\nb", "null", "{a: 1}"])
def test_a_run_may_begin_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    result = call(*TINY, "num_train_steps=32", run_dir(tmp_path / name))
    assert result.code == 0, result.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
