"""A short campaign with seeds of its own; `make campaign` tries as much as there is time for."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hsw.run.checkpoint import list_checkpoints
from tests.faults.campaign import __main__ as command
from tests.faults.campaign import bad_env, server
from tests.faults.campaign.changes import sign
from tests.faults.campaign.checks import check_end, check_same
from tests.faults.campaign.families import FAMILIES
from tests.faults.campaign.kills import Tried
from tests.faults.campaign.server import adopting, fork, scratch
from tests.faults.campaign.store import SETUPS, Store
from tests.faults.campaign.work import table, try_case

SHORT = [  # of PPO alone, so that the run that nothing disturbs is made once
    *(("lives", 3), ("lives", 19), ("lives", 23), ("environments", 3), ("environments", 6), ("kills", 51)),
    *(("kills", 55), ("streams", 0), ("limits", 6), ("mutations", 25), ("mutations", 54), ("mutations", 12)),
    *(("damages", 7), ("configs", 24), ("configs", 42), ("links", 0), ("links", 20), ("paths", 4)),
]
LONGER = [
    ("environments", 3),
    ("kills", 2),
    ("kills", 5),
    ("streams", 1),
    ("limits", 1),
    ("sweeps", 0),
    ("commands", 0),
]
PPO = SETUPS["ppo"]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = Store()
    with adopting():
        yield made
    made.close()


@pytest.mark.parametrize(
    ("family", "seed"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONGER)]
)
def test_a_case_survives(family: str, seed: int, store: Store) -> None:
    row = try_case(family, seed, store)
    assert row["survived"], row["what"]


def test_faults_of_environments_are_many_and_each_is_what_its_seed_says() -> None:
    one, other = ([bad_env.draw(random.Random(seed)) for seed in range(300)] for _ in range(2))
    assert one == other
    assert len({str(fault) for fault in one}) > 200


# -- a defect is seen -------------------------------------------------------------------------------------------------


def fail(code: int, said: str = "hsw: it failed\n") -> Callable[[Path], None]:
    """Ends as a command should not."""

    def main(run: Path) -> None:
        sys.stderr.write(said)
        sys.exit(code)

    return main


def leave_a_process(run: Path) -> None:
    subprocess.Popen(["sleep", "60"], start_new_session=True)


def leave_shared_memory(run: Path) -> None:
    Path(f"/dev/shm/torch_{os.getpid()}_planted").touch()


def crash(run: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(run: Path) -> None:
    time.sleep(60)


def spoil_metrics(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5')


def spoil_checkpoints(run: Path) -> None:
    for path in run.glob("checkpoints/*/tensors.safetensors"):
        path.write_bytes(b"nothing")


def disagree(run: Path) -> None:
    status = json.loads((run / "status.json").read_bytes())
    (run / "status.json").write_text(json.dumps({**status, "status": "failed", "exit_code": 3}))


def log_once_more(run: Path) -> None:
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(last + "\n")


def change_a_bit(run: Path) -> None:
    checkpoint = run / "checkpoints" / f"{list_checkpoints(run / 'checkpoints')[-1]:06d}"
    tensors = load_file(checkpoint / "tensors.safetensors")
    weight = next(name for name in sorted(tensors) if name.startswith("/policy"))
    tensors[weight].flatten().view(torch.int32)[0] ^= 1
    save_file(tensors, checkpoint / "tensors.safetensors")
    sign(checkpoint, json.loads((checkpoint / "manifest.json").read_bytes()))


DEFECTS = {
    "code 1 is none of": fail(1),
    "with 0 sentences": fail(3, "it failed\n"),
    "with 2 sentences": fail(3, "hsw: it failed\nhsw: it failed\n"),
    "a traceback": fail(3, "hsw: it failed\nTraceback (most recent call last):\n"),
    "left 1 processes behind: sleep 60": leave_a_process,
    "in shared memory": leave_shared_memory,
    "code -11 is none of": crash,
    "did not end within": hang,
    "metrics.jsonl has the line": spoil_metrics,
    "can be read": spoil_checkpoints,
    "status.json says 3": disagree,
    "other metrics than": log_once_more,
    "another state than": change_a_bit,
}


@pytest.mark.parametrize("words", DEFECTS)
def test_a_planted_defect_is_not_survived(words: str, store: Store, monkeypatch: Any) -> None:
    def planted(rng: random.Random, store: Store) -> Tried:
        with scratch() as place:
            run = store.copy(PPO, place / "run")
            process = fork(place, main=lambda: DEFECTS[words](run))
            check_end(process.wait(0.5 if words.startswith("did") else 60), {0, 3}, process.err, run)
            check_same(run, store.run(*PPO.arguments), "it")
        return Tried("nothing was seen")

    monkeypatch.setattr(server, "GRACE", 0.2)
    monkeypatch.setitem(FAMILIES, "planted", (planted, 1.0))
    row = try_case("planted", 1, store)
    for path in Path("/dev/shm").glob("torch_*_planted"):
        path.unlink()
    assert not row["survived"]
    assert words in row["what"]
    assert "not survived planted:1: " in table([row], ["planted"])


@pytest.mark.parametrize("survives", [True, False])
def test_the_exit_code_says_whether_every_case_survived(
    survives: bool, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    def case(rng: random.Random, store: Store) -> Tried:
        if not survives and rng.random() < 0.5:
            raise ValueError("planted")
        time.sleep(0.01)
        return Tried("it", exact=True)

    monkeypatch.setitem(FAMILIES, "planted", (case, 1.0))
    monkeypatch.setattr(command, "warm", lambda *recipes: None)
    words = ("--only", "planted", "--seconds", "0.3", "--results", str(tmp_path / "rows"))
    monkeypatch.setattr(sys, "argv", ["campaign", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert bool(ended.value.code) is not survives
    _, row, total, *_ = capsys.readouterr().out.splitlines()
    _, tried, lived, exact, *_ = row.split()
    assert (total.split()[1], tried == lived, lived) == (tried, survives, exact)
