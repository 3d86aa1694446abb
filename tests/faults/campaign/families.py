"""What is tried. A family is a function of a generator and of a store of finished runs; it raises Broken."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from hsw.run.checkpoint import list_checkpoints
from tests.faults.campaign.harness import SLOW, Process, check_end, check_folder, fork, hold, limit, scratch
from tests.faults.culprits import WHATS, WHERES
from tests.runs import ROOT, TINY, differences, newest, run_dir, tiny, tiny_run, without_times

EXACT = ("ppo", "daac", "sac", "her_sac")
LENGTH = ("num_train_steps=500", "checkpoint_interval=40")


class Store:
    """Runs that nothing disturbed, made once each."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="campaign-store-"))
        self.seconds: dict[str, float] = {}

    def run(self, recipe: str) -> Path:
        """The folder of a finished run."""
        folder = self.place / recipe
        if recipe not in self.seconds:
            process = fork(self.place, *tiny_run(recipe), *LENGTH, run_dir(folder))
            code = process.wait()
            check_end(process, code, {0}, folder)
            self.seconds[recipe] = time.monotonic() - process.begin
        return folder

    def copy(self, recipe: str, to: Path) -> Path:
        shutil.copytree(self.run(recipe), to, symlinks=True)
        return to

    def close(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)


def environments(rng: random.Random, store: Store) -> str:
    """An environment that misbehaves: what x where x backend x agent."""
    what, where = rng.choice(sorted(WHATS)), rng.choice(WHERES)
    backend, recipe = rng.choice(("sync", "async")), rng.choice(("ppo", "ppo", "sac", "impala"))
    if recipe == "impala":
        backend = "sync"
    if what in ("hang_in_c", "hang_with_lock"):
        backend = "async" if recipe != "impala" else backend
        where = where if where != "build" else "reset"  # async builds one here for its spaces
    what = "hang" if what in ("hang_in_c", "hang_with_lock") and recipe == "impala" else what
    options = [f"+env.kwargs={{what:{what},where:{where},after:{rng.randrange(60)},continuous:{recipe == 'sac'}}}"]
    if recipe == "impala":
        options += ["agent.max_restarts=1", "agent.actor_timeout=3"]
    with scratch() as place:
        arguments = (*tiny(recipe), "env.id=tests.faults.culprits:Culprit-v0", *options, f"env.backend={backend}")
        process = fork(place, *arguments, "env.timeout=0.5", "checkpoint_interval=40", run_dir(place / "run"))
        check_end(process, process.wait(), {0, 3, 5}, place / "run")
    return f"{what} in {where} of {backend} with {recipe}"


def kills(rng: random.Random, store: Store) -> str:
    """A run is killed, or asked to stop, at any moment, and goes on: as if nothing had been, where that is promised."""
    recipe = rng.choice((*EXACT, "impala"))
    whole = store.run(recipe)
    signum = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    with scratch() as place:
        run = place / "run"
        process = fork(place, *tiny_run(recipe), *LENGTH, run_dir(run))
        time.sleep(rng.random() * store.seconds[recipe])
        process.kill(signum)
        code = process.wait(15.0)
        codes = {0, -signum, 128 + signum} | ({143} if signum == signal.SIGHUP else set())
        hold(code in codes, f"{recipe} after signal {signum}: code {code}: {process.err.read_text()[-300:]}")
        check_folder(run)
        if not list_checkpoints(run / "checkpoints"):
            return f"{recipe} by signal {signum} before a checkpoint"
        if newest(run)["step"] >= 500:
            return f"{recipe} by signal {signum} at its very end"
        again = fork(place, f"resume={run}", "allow=[tests]", "quiet=true")
        check_end(again, again.wait(), {0}, run)
        if recipe in EXACT:
            pairs = zip_longest(without_times(run), without_times(whole))
            other = next((pair for pair in pairs if pair[0] != pair[1]), None)
            hold(other is None, f"{recipe} by signal {signum}: other metrics than of the whole run: {other}")
            ends = [newest(folder) for folder in (run, whole)]
            for end in ends:
                end.pop("logger")
            different = [path for path in differences(*ends) if "session" not in path]
            hold(not different, f"{recipe}: other states than of the whole run: {different[:5]}")
    return f"{recipe} by signal {signum}"


def sweeps(rng: random.Random, store: Store) -> str:
    """The main process of a sweep is killed: nothing of it is left after 5 s, and the same command ends as ever."""
    launcher, delay = rng.choice(("joblib", "joblib", "basic")), rng.uniform(1.0, 15.0)
    with scratch() as place:
        sweep = ("--multirun", *TINY, "seed=1,2,3", f"hydra/launcher={launcher}", f"hydra.sweep.dir={place}/sweep")
        command = [sys.executable, "-m", "hsw.train", *sweep, "num_train_steps=3000", "checkpoint_interval=200"]
        env = {**os.environ, "CAMPAIGN": place.name}
        with (place / "err.txt").open("w") as err:
            first = subprocess.Popen(command, cwd=ROOT, env=env, stdout=err, stderr=err, start_new_session=True)
            time.sleep(delay)
            first.kill()
            first.wait()
            end = time.monotonic() + 5.0
            while left := carrying(place.name):
                hold(time.monotonic() < end, f"{launcher} killed at {delay:.1f} s left {left} behind")
                time.sleep(0.1)
            done = subprocess.run(command, cwd=ROOT, env=env, stdout=err, stderr=err, timeout=4 * SLOW)
        hold(done.returncode == 0, f"the rerun ended with {done.returncode}: {(place / 'err.txt').read_text()[-400:]}")
        for seed in (1, 2, 3):
            check_folder(place / "sweep" / f"seed-{seed}", 0)
    return f"{launcher} at {delay:.1f} s"


def carrying(word: str) -> list[int]:
    """Processes that have a word among their environment variables."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if word.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def streams(rng: random.Random, store: Store) -> str:
    """Streams that take nothing, or not everything."""
    kinds = {name: rng.choice(("file", "full", "closed", "broken", "ascii")) for name in ("stdout", "stderr")}

    def damage() -> None:
        for descriptor, kind in enumerate(kinds.values(), 1):
            if kind == "full":
                os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
            elif kind == "broken":
                read, write = os.pipe()
                os.close(read)
                os.dup2(write, descriptor)
                os.close(write)
            elif kind == "closed":
                os.close(descriptor)
                setattr(sys, "stdout" if descriptor == 1 else "stderr", None)
            elif kind == "ascii":
                (sys.stdout if descriptor == 1 else sys.stderr).reconfigure(encoding="ascii")  # type: ignore[union-attr]

    recipe = rng.choice((*EXACT, "impala"))
    with scratch() as place:
        options = ("quiet=false", "env.id=tests.envs:Chatty-v0", "+env.kwargs.size=9999") if rng.random() < 0.3 else ()
        arguments = (*tiny("ppo"), *options) if options else tiny_run(recipe)
        process = fork(place, *arguments, run_dir(place / "run"), before=damage)
        code = process.wait()
        check_end(process, code, {0}, place / "run")
    return f"{kinds} with {recipe}"


def limits(rng: random.Random, store: Store) -> str:
    """Too little of something."""
    kind, low, high = rng.choice(
        (
            (resource.RLIMIT_FSIZE, 0, 60_000),
            (resource.RLIMIT_NOFILE, 20, 120),
        )
    )
    amount, recipe, backend = rng.randrange(low, high), rng.choice((*EXACT, "impala")), rng.choice(("sync", "async"))
    backend = "sync" if recipe == "impala" else backend
    with scratch() as place:
        options = (f"env.backend={backend}", "checkpoint_interval=40", run_dir(place / "run"))
        process = fork(place, *tiny_run(recipe), *options, before=limit(kind, amount))
        process.err = Path() if kind == resource.RLIMIT_FSIZE else process.err  # a file as well
        code = process.wait()
        hold(code in {0, 2, 3, 5, 6}, f"limit {kind} of {amount} with {recipe} and {backend}: code {code}")
        check_folder(place / "run")
    return f"limit {kind} of {amount} with {recipe} and {backend}"


# -- data that someone has changed ------------------------------------------------------------------------------------


def mutations(rng: random.Random, store: Store) -> str:
    """One leaf of a checkpoint or of its manifest is another, and the checksums are right."""
    recipe = rng.choice(EXACT)
    with scratch() as place:
        run = store.copy(recipe, place / "run")
        for number in list_checkpoints(run / "checkpoints")[:-1]:
            shutil.rmtree(run / "checkpoints" / f"{number:06d}")
        folder = run / "checkpoints" / f"{list_checkpoints(run / 'checkpoints')[-1]:06d}"
        kind, structural, what = mutate(rng, folder)
        process = fork(place, f"resume={run}", "allow=[tests]", "quiet=true", "num_train_steps=600")
        codes = {7} if structural else {0, 3, 4, 7}
        code = process.wait(30.0)
        err = process.err.read_text(errors="replace")
        hold(code in codes, f"{recipe}: {kind} of {what}: code {code} is none of {sorted(codes)}: {err[-300:]}")
        hold("Traceback" not in err, f"{recipe}: {kind} of {what}: a traceback: {err[-300:]}")
    return f"{recipe}: {kind} of {what}"


def mutate(rng: random.Random, folder: Path) -> tuple[str, bool, str]:
    """Change one leaf and sign again. Returns what was done, whether it must be refused, and where."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    where = rng.choice(("state", "state", "tensors", "tensors", "manifest"))
    if where == "tensors":
        tensors = load_file(folder / "tensors.safetensors")
        name = rng.choice(sorted(tensors))
        kind, structural, tensors[name] = changed_tensor(rng, tensors[name])
        if kind == "missing":
            del tensors[name]
        sign(folder, manifest, "tensors.safetensors", save(tensors))
        return kind, structural, name
    whole = json.loads((folder / "state.json").read_bytes()) if where == "state" else manifest
    path, parent, key = rng.choice(list(leaves(whole)))
    kind, parent[key] = changed_leaf(rng, parent[key])
    if kind == "missing":
        del parent[key]
    if where == "state":
        sign(folder, manifest, "state.json", json.dumps(whole).encode())
    else:
        (folder / "manifest.json").write_text(json.dumps(whole))
    return kind, kind in ("missing", "list", "mapping", "text") and where == "manifest", f"{where}{path}"


def sign(folder: Path, manifest: dict[str, Any], name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def changed_tensor(rng: random.Random, tensor: torch.Tensor) -> tuple[str, bool, torch.Tensor]:
    kinds: dict[str, Callable[[], torch.Tensor]] = {
        "missing": lambda: tensor,
        "scalar": lambda: torch.zeros((), dtype=tensor.dtype) if tensor.dim() else torch.zeros(3, dtype=tensor.dtype),
        "longer": lambda: torch.zeros(tuple(size + 1 for size in tensor.shape) or (2,), dtype=tensor.dtype),
        "dtype": lambda: tensor.to(torch.int16 if tensor.dtype != torch.int16 else torch.float32),
        "nan": lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor.clone().fill_(1),
        "huge": lambda: torch.full_like(tensor, 1e30) if tensor.is_floating_point() else tensor.clone().fill_(100),
        "zero": lambda: torch.zeros_like(tensor),
    }
    kind = rng.choice(sorted(kinds))
    return kind, kind in ("missing", "scalar", "longer", "dtype"), kinds[kind]()


def changed_leaf(rng: random.Random, value: Any) -> tuple[str, Any]:
    kinds: dict[str, Any] = {
        "missing": value,
        "null": None,
        "negative": -1,
        "large": 2**70,
        "nan": float("nan"),
        "text": "../../x\x1b[2J",
        "list": [1, [2]],
        "mapping": {"_target_": "os.system", "$tensor": "/nowhere"},
        "true": True,
    }
    kind = rng.choice(sorted(kinds))
    return kind, copy.deepcopy(kinds[kind])


def leaves(node: Any, path: str = "") -> Any:
    """Every leaf of a nested value: its path, what holds it, and its key there."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, dict | list) and value:
                yield from leaves(value, f"{path}/{key}")
            else:
                yield f"{path}/{key}", node, key


def links(rng: random.Random, store: Store) -> str:
    """Something in a run folder leads elsewhere."""
    with scratch() as place:
        run, outside = store.copy("ppo", place / "run"), place / "outside"
        outside.mkdir()
        names = [path for path in sorted(run.rglob("*")) if not path.is_symlink()]
        target = rng.choice(names)
        relative = target.relative_to(run)
        if target.is_dir():
            shutil.copytree(target, outside / "goal")
            shutil.rmtree(target)
        else:
            shutil.copy(target, outside / "goal")
            target.unlink()
        target.symlink_to(outside / "goal")
        before = contents(outside)
        process: Process = fork(place, f"resume={run}", "allow=[tests]", "quiet=true", "num_train_steps=600")
        code = process.wait(30.0)
        hold(contents(outside) == before, f"{relative} was a link, and what it leads to was changed")
        hold(code in (0, 2, 6, 7), f"{relative} was a link: code {code}: {process.err.read_text()[-300:]}")
    return f"{relative} is a link"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


FAMILIES: dict[str, tuple[Callable[[random.Random, Store], str], float]] = {  # and how often, one to another
    "environments": (environments, 10),
    "kills": (kills, 4),
    "sweeps": (sweeps, 0.15),
    "streams": (streams, 5),
    "limits": (limits, 5),
    "mutations": (mutations, 10),
    "links": (links, 3),
}
