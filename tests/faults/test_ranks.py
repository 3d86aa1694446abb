"""Several learners, of which one dies, hangs or fails, or which are stopped: all end, and nothing is half-made."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsw.run import checkpoint
from tests.runs import Result, finish, newest, patience, run_dir, start, tiny_run, wait_for

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hsw.train")
ENDLESS = ("num_train_steps=100000000", "checkpoint_interval=200")
MARK = "HSW_TEST_RANKS"


def processes(mark: str) -> dict[int, str]:
    """The living processes that carry a mark, and the command line of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0")
            if marked and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


class Group:
    """A run of two learners, started by itself or by torchrun."""

    def __init__(
        self, folder: Path, *arguments: str, torchrun: bool = False, endless: bool = True, env: Any = ()
    ) -> None:
        self.folder, self.torchrun, self.mark = folder, torchrun, str(time.monotonic_ns())
        program = TORCHRUN if torchrun else ("-m", "hsw.train")
        given = (*tiny_run("ppo"), *(ENDLESS if endless else ()), *(() if torchrun else ("learners=2",)), *arguments)
        marked = {MARK: self.mark, **dict(env)}  # which a forked process would not show
        self.process = start(*given, run_dir(folder), env=marked, program=program, forked=False)

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        if rank == 0 and not self.torchrun:
            return int(self.process.pid)
        for pid in processes(self.mark):
            with contextlib.suppress(OSError):
                own = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if f"RANK={rank}".encode() in own and (b"hsw.learners" in words or b"hsw.train" in words):
                    return pid
        raise AssertionError(f"there is no rank {rank} among {processes(self.mark)}")

    def trains(self) -> None:
        """Wait until there is a checkpoint."""
        checkpoints = self.folder / "checkpoints"
        wait_for(lambda: self.process.poll() is not None or checkpoint.list_checkpoints(checkpoints), 120)
        assert self.process.poll() is None, self.process.communicate()

    def ends(self, within: float) -> Result:
        """Wait for the end; nothing may be left: no process, no shared memory of theirs, no half-written checkpoint
        that a loader would take."""
        begin = time.monotonic()
        pids = list(processes(self.mark))
        result = finish(self.process, within + 30)
        wait_for(lambda: not processes(self.mark), 10)
        assert time.monotonic() - begin < within + slack()
        assert not [path for path in Path("/dev/shm").iterdir() if any(f"_{pid}_" in path.name for pid in pids)]
        return result

    def close(self) -> None:
        for pid in processes(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "status.json").read_text()))


def slack() -> float:
    """Seconds that a machine with more to do than it can is slower."""
    return 3.0 * max(0.0, os.getloadavg()[0] / (os.cpu_count() or 1) - 1)


def told(result: Result) -> list[str]:
    return [line for line in result.err.splitlines() if line.startswith("hsw: ")]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Any]:
    made: list[Group] = []

    def make(*arguments: str, **options: Any) -> Group:
        made.append(Group(tmp_path / "run", *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_rank_that_is_killed_ends_the_other_and_is_named(group: Any) -> None:
    run = group()
    run.trains()
    os.kill(run.pid(1), signal.SIGKILL)
    ended = run.ends(within=20)
    assert ended.refused(5, "rank 1 died", "signal 9")
    assert (run.status["status"], run.status["exit_code"]) == ("failed", 5)
    assert not list(run.folder.glob("checkpoints/.writing-*"))
    assert newest(run.folder)["step"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_of_torchruns_ranks_one_that_is_killed_ends_the_other_and_is_named(rank: int, group: Any) -> None:
    run = group(torchrun=True)
    run.trains()
    os.kill(run.pid(rank), signal.SIGKILL)
    ended = run.ends(within=20)
    assert told(ended) == [f"hsw: rank {rank} died"]
    assert ended.code == 1  # torchrun's own
    assert newest(run.folder)["step"] >= 200
    if rank:
        assert run.status["exit_code"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_whoever_started_them_saves_and_stops(signum: int, torchrun: bool, group: Any) -> None:
    run = group(torchrun=torchrun)
    run.trains()
    os.kill(run.process.pid, signum)
    ended = run.ends(within=10)
    assert told(ended)[0].startswith(f"hsw: stopped by signal {int(signum)} at step")
    assert len(told(ended)) == 1
    assert run.status["exit_code"] == 128 + signum
    assert torchrun or ended.code == 128 + signum
    assert newest(run.folder)["step"] == run.status["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True])
def test_a_signal_to_one_rank_is_one_to_all(torchrun: bool, group: Any) -> None:
    run = group(torchrun=torchrun)
    run.trains()
    os.kill(run.pid(1), signal.SIGTERM)
    run.ends(within=10)
    assert (run.status["status"], run.status["exit_code"]) == ("interrupted", 143)


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True])
def test_ranks_end_with_whoever_started_them(torchrun: bool, group: Any) -> None:
    run = group(torchrun=torchrun)
    run.trains()
    run.process.kill()
    begin = time.monotonic()
    wait_for(lambda: not processes(run.mark), 5 + slack())
    assert time.monotonic() - begin < patience(4) + slack()
    run.process.communicate()
    assert run.process.returncode == -9
    assert newest(run.folder)["step"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped_counts_as_lost_after_the_timeout(rank: int, torchrun: bool, group: Any) -> None:
    run = group("distributed_timeout=20", torchrun=torchrun)
    run.trains()
    os.kill(run.pid(rank), signal.SIGSTOP)
    ended = run.ends(within=35)
    assert any(f"rank {rank}" in line for line in told(ended)), ended.err
    assert newest(run.folder)["step"] >= 200
    if rank:
        assert run.status["exit_code"] == 5


RANK_ONE = "import os; own = os.environ.get('RANK') == '1'"


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True])
@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("raise", 3, "rank 1: .*division by zero"),
        ("exit", 3, "rank 1: "),
        ("kill", 5, "rank 1 died"),
        ("hang", 5, "rank 1 did not come within 20 s"),
    ],
)
def test_what_an_environment_of_one_rank_does_is_told_once(
    what: str, code: int, words: str, torchrun: bool, group: Any
) -> None:
    env = ("env.id=tests.faults.one_rank:OneRank-v0", f"+env.kwargs={{what:{what},after:60}}", "env.timeout=null")
    run = group(*env, "distributed_timeout=20", "checkpoint_interval=20", torchrun=torchrun)
    ended = run.ends(within=60)
    assert len(told(ended)) == 1, ended.err
    assert re.search(words, told(ended)[0]), ended.err
    assert torchrun or ended.code == code
    assert run.status["exit_code"] == code
    assert newest(run.folder)["step"] >= 20
    if what == "raise":
        assert "ZeroDivisionError" in (run.folder / "train.log").read_text()


@pytest.mark.slow
def test_while_rank_0_evaluates_for_longer_than_the_timeout_the_other_waits(group: Any) -> None:
    env = ("env.id=tests.faults.one_rank:OneRank-v0", "+env.eval_kwargs={pause:3.0}", "eval_episodes=2")
    run = group(*env, "distributed_timeout=20", "num_train_steps=40", "storage.num_steps=8", endless=False)
    ended = run.ends(within=120)
    assert ended.code == 0, ended.err
    lengths = [
        row["eval/length"] for row in map(json.loads, (run.folder / "metrics.jsonl").open()) if "eval/length" in row
    ]
    assert lengths[-1] * 2 * 3 > 20  # two environments, one after the other


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_within_a_save_leaves_the_checkpoint_before(rank: int, group: Any, tmp_path: Path) -> None:
    """At the second checkpoint: rank 1 once it has written one file of its part, rank 0 before the manifest."""
    site = tmp_path / "site"
    site.mkdir()
    file = "state-1.json" if rank else "manifest.json"
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def audit(event, args):\n"
        f"    if event == 'open' and args[0] == {file!r} and args[2] & os.O_CREAT and os.environ['RANK'] == '{rank}':\n"
        "        count.append(1)\n"
        "        if len(count) == 2: os.kill(os.getpid(), 9)\n"
        "count = []\n"
        "sys.addaudithook(audit)\n"
    )
    run = group(env={"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])})
    ended = run.ends(within=60)
    assert ended.code == (5 if rank else -9), ended.err
    assert checkpoint.list_checkpoints(run.folder / "checkpoints") == [1]
    assert newest(run.folder)["step"] >= 200
    resumed = finish(start(f"resume={run.folder}", "num_train_steps=400"), 120)
    assert resumed.code == 0, resumed.err
    assert not list(run.folder.glob("checkpoints/.writing-*"))


@pytest.mark.slow
def test_learners_that_do_not_see_one_folder_are_refused(group: Any, tmp_path: Path) -> None:
    program = tmp_path / "apart.py"
    program.write_text(
        "import os, pathlib, sys\nimport hsw.train\n"
        "read = pathlib.Path.read_text\n"
        "def blind(path, *args, **kwargs):\n"
        "    if path.name.startswith('.ranks-') and os.environ['RANK'] == '1': raise FileNotFoundError(path)\n"
        "    return read(path, *args, **kwargs)\n"
        "pathlib.Path.read_text = blind\n"
        "if __name__ == '__main__': hsw.train.cli()\n"
    )
    run = tmp_path / "run"
    started = start(*tiny_run("ppo"), run_dir(run), program=(*TORCHRUN[:4], str(program)))
    ended = finish(started, 120)
    assert [line for line in told(ended) if "rank 1 does not see the file" in line] == told(ended)
    assert len(told(ended)) == 1
    assert "exitcode  : 2" in ended.err
    assert not run.exists()
