"""Runs that nothing disturbed, made once each; what is compared with them says so by its name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.campaign.checks import check_end
from tests.faults.campaign.server import SLOW, fork
from tests.runs import CONTINUOUS, run_dir, tiny_run

BUDGET = 300  # steps
LENGTH = (f"num_train_steps={BUDGET}", "checkpoint_interval=25")
NOISE = ("env=gym", "env.id=tests.envs:Noise-v0")


class Setup(NamedTuple):
    """A tiny run.

    Attributes:
        recipe: Its agent.
        options: That it has besides.
    """

    recipe: str
    options: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether it goes on bit for bit."""
        return self.recipe != "impala"

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*tiny_run(self.recipe), *self.options, *LENGTH)


SETUPS = {
    "ppo": Setup("ppo"),
    "ppo-async": Setup("ppo", ("env.backend=async",)),
    "ppo-normalized": Setup("ppo", ("env.normalize_obs=true", "env.normalize_reward=true", "eval_interval=90")),
    "ppo-curious": Setup("ppo", (*NOISE, "intrinsic_reward=count_bonus", "env.num_envs=3")),
    "ppo-continuous": Setup("ppo", (*CONTINUOUS, "eval_interval=70")),
    "daac": Setup("daac"),
    "daac-async": Setup("daac", ("env.backend=async", "algorithm.value_freq=2")),
    "daac-noise": Setup("daac", (*NOISE, "env.num_envs=3", "logger=csv")),
    "sac": Setup("sac"),
    "sac-async": Setup("sac", ("env.backend=async", "eval_interval=90")),
    "sac-n-step": Setup("sac", ("storage.n_step=3", "env.num_envs=3")),
    "her_sac": Setup("her_sac"),
    "her_sac-async": Setup("her_sac", ("env.backend=async", "storage.goal_selection_strategy=episode")),
    "her_sac-final": Setup("her_sac", ("storage.goal_selection_strategy=final", "storage.copy_info_dict=true")),
    "impala": Setup("impala"),
    "impala-lstm": Setup("impala", ("network.lstm_size=8",)),
}
EXACT = tuple(name for name, setup in SETUPS.items() if setup.exact)
# A short list, so that a case has its reference soon.
PLAIN = ("ppo", "daac", "sac", "her_sac")


class Store:
    """Finished runs in a folder that several processes share.

    Args:
        place: The folder; None makes one, which close deletes.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._own = place is None
        self.place = place or Path(tempfile.mkdtemp(prefix="campaign-store-"))

    def close(self) -> None:
        if self._own:
            shutil.rmtree(self.place, ignore_errors=True)

    def run(self, *arguments: str) -> Path:
        """The folder of a finished run of these arguments."""
        return self.folder(arguments, lambda folder: (*arguments, run_dir(folder)))

    def folder(self, key: tuple[str, ...], command: Callable[[Path], tuple[str, ...]]) -> Path:
        """The folder that a command leaves which ends with code 0.

        Args:
            key: What makes it another one.
            command: Its arguments, of the folder that it is to leave.
        """
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        folder, facts = self.place / name, self.place / f"{name}.json"
        with (self.place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not facts.exists():
                shutil.rmtree(folder, ignore_errors=True)
                said = self.place / f"{name}.said"
                said.mkdir(exist_ok=True)
                counter = Accesses()
                process = fork(said, *command(folder), before=counter.count)
                code = process.wait(4 * SLOW)
                check_end(code, {0}, process.err, folder if (folder / "status.json").exists() else None)
                told = {"seconds": time.monotonic() - process.begin, "accesses": counter.total}
                facts.write_text(json.dumps(told))
        return folder

    def facts(self, folder: Path) -> dict[str, Any]:
        """How long a run took, `seconds`, and how often it opened, made, renamed or deleted files, `accesses`."""
        told: dict[str, Any] = json.loads(Path(f"{folder}.json").read_text())
        return told

    def copy(self, setup: Setup, to: Path) -> Path:
        """A copy of a finished run."""
        shutil.copytree(self.run(*setup.arguments), to, symlinks=True)
        return to


class Accesses:
    """Counts what a process does with files once it owns its run folder, or kills it at one of these moments."""

    EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"})

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def total(self) -> int:
        return int.from_bytes(self._shared[:8], "little")

    def count(self, last: int = 2**62, signum: int = signal.SIGKILL) -> None:
        """Begin, in the process that is meant; the last access is the moment of a signal."""
        pid, seen, began = os.getpid(), 0, False

        def hook(event: str, arguments: Any) -> None:
            nonlocal seen, began
            if event not in Accesses.EVENTS:
                return
            began = began or arguments[0] == "run.lock"
            if began and os.getpid() == pid:
                seen += 1
                self._shared[:8] = seen.to_bytes(8, "little")
                if seen == last:
                    os.kill(pid, signum)

        sys.addaudithook(hook)
