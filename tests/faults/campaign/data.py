"""Run folders that somebody, or a disk, has changed: states, manifests, configs, files, links."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hsw.run.checkpoint import list_checkpoints
from tests.faults.campaign import changes
from tests.faults.campaign.checks import Broken, check_end, contents, hold
from tests.faults.campaign.kills import Tried
from tests.faults.campaign.readers import READERS, forget_imports, read_by
from tests.faults.campaign.server import scratch
from tests.faults.campaign.store import EXACT, PLAIN, SETUPS, Store

OTHER = {0, 3, 4, 7}  # what a state of the right form may end with
SOON = 30.0  # seconds


def mutations(rng: random.Random, store: Store) -> Tried:
    """One leaf of the state, of its tensors or of the manifest is another, and all checksums are right."""
    name = rng.choice((*PLAIN, "impala", rng.choice(EXACT)))
    reader = rng.choice(("resume", "resume", "resume", "resume", "resume", "command", "eval"))
    where = rng.choice(("state", "state", "tensors", "tensors", "manifest"))
    with scratch() as place:
        run = store.copy(SETUPS[name], place / "run")
        checkpoint = _only_newest(run / "checkpoints")
        manifest = json.loads((checkpoint / "manifest.json").read_bytes())
        if where == "tensors":
            tensors = changes.read_tensors(checkpoint)
            kind, wrong, path = changes.change_tensor(rng, tensors)
            changes.write_tensors(checkpoint, tensors)
        else:
            whole = json.loads((checkpoint / "state.json").read_bytes()) if where == "state" else manifest
            whole.pop("checksum", None)
            path, parent, key = rng.choice(list(changes.leaves(whole)))
            kind, wrong = changes.change_leaf(rng, parent, key)
            if where == "state":
                (checkpoint / "state.json").write_text(json.dumps(whole))
        changes.sign(checkpoint, manifest, files=where != "manifest")
        what = f"{kind} for {where} {path} of {name}, read by {reader}"
        # What an evaluation does not take up may be as it likes; what it does is held against its template too.
        codes = {7} if wrong and reader != "eval" and not _free(where, path, kind) else OTHER
        process = read_by(reader, run, place)
        try:
            check_end(process.wait(SOON), codes, process.err, None)
        except Broken as error:
            raise Broken(f"{what}: {error}") from None
    return Tried(what)


def _only_newest(checkpoints: Path) -> Path:
    """The newest checkpoint, when those before it, on which a run would fall back, are gone."""
    *others, newest = list_checkpoints(checkpoints)
    for number in others:
        shutil.rmtree(checkpoints / f"{number:06d}")
    return checkpoints / f"{newest:06d}"


def _free(where: str, path: str, kind: str) -> bool:
    """Whether nobody but the object that a value belongs to knows what it may be; older manifests lack some keys, and
    later ones may have further ones."""
    if where == "manifest":
        return kind == "another key" or not path.startswith(("/format", "/meta/step", "/sha256", "/rows"))
    return path.startswith(("/logger", "/callbacks"))


def damages(rng: random.Random, store: Store) -> Tried:
    """A file is damaged, and nobody has signed it again."""
    name, reader = rng.choice((*PLAIN, rng.choice(EXACT))), rng.choice(READERS)
    with scratch() as place:
        run = store.copy(SETUPS[name], place / "run")
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != "run.lock")
        path = rng.choice(files)
        before = path.read_bytes()
        kind = changes.damage(rng, path)
        relative = path.relative_to(run)
        what = f"{kind} of {relative} of {name}, read by {reader}"
        codes = {0, 2, 3, 4, 6, 7}
        if "checkpoints" in relative.parts and reader in ("resume", "command"):
            shared = relative.parts[1] == "rows"  # by the checkpoint before, perhaps
            codes = {0, 7} if shared else {0}  # the checkpoint before is used
        elif "best" in relative.parts and reader == "best" and path.read_bytes() != before:
            codes = {7}
        process = read_by(reader, run, place)
        try:
            check_end(process.wait(SOON), codes, process.err, None)
        except Broken as error:
            raise Broken(f"{what}: {error}") from None
    return Tried(what)


HOSTILE: tuple[Any, ...] = (
    *("evil:Evil-v0", "evil.run", "${oc.env:HOME}", "${oc.env:CAMPAIGN_SECRET}", "../../outside/goal", "/etc/passwd"),
    *({"_target_": "evil.run"}, {"_target_": "os.system", "_args_": ["touch executed"]}, ["evil:Evil-v0"]),
    {"_target_": "hsw.env.make_env", "_args_": ["evil:Evil-v0"]},
    {"_target_": "torch.load", "f": "x", "_partial_": True},
    {"_target_": "builtins.eval", "_convert_": "all", "_recursive_": False},
    *(None, -1, 2**70, 1e400, True, "", "x" * 100_000, [[]] * 1000, {"a": {"_target_": "evil.run"}}),
)


def configs(rng: random.Random, store: Store) -> Tried:
    """A leaf of config.yaml, or of another file that tells of a run, is something hostile; nothing of it executes."""
    name, reader = rng.choice((*PLAIN, "impala")), rng.choice(READERS)
    file = rng.choice(("config.yaml", "config.yaml", "config.yaml", "choices.json", "status.json", "versions.json"))
    with scratch() as place:
        run = store.copy(SETUPS[name], place / "run")
        (place / "evil.py").write_text(f"open({str(place / 'executed')!r}, 'w')\ndef run(*a, **k):\n    pass\n")
        parsed = yaml.safe_load((run / file).read_text())
        path, parent, key = rng.choice(list(changes.leaves(parsed)))
        hostile = rng.choice(HOSTILE)
        if rng.random() < 0.3 and isinstance(parent, dict):
            key = rng.choice(("_target_", "_args_", "_partial_", "kwargs", "id", "evil", "allow", "_recursive_", "a.b"))
        parent[key] = hostile
        text = json.dumps(parsed) if file.endswith("json") else yaml.safe_dump(parsed)
        (run / file).write_text(text)
        what = f"{str(hostile)[:60]} for {key} at {path} of {file} of {name}, read by {reader}"
        os.environ["CAMPAIGN_SECRET"] = "a-word-that-nobody-says"
        process = read_by(reader, run, place, forget_imports(place))
        try:
            check_end(process.wait(SOON), {0, 2, 3, 6, 7}, process.err, None)
        except Broken as error:
            raise Broken(f"{what}: {error}") from None
        hold(not (place / "executed").exists(), f"{what}: it was executed")
        said = process.err.read_text(errors="replace") + process.out.read_text(errors="replace")
        hold("a-word-that-nobody-says" not in said, f"{what}: the environment was read")
    return Tried(what)


NODES = ("link", "link", "dangling", "loop", "hard link", "fifo", "device", "socket", "folder", "file", "absent")


def links(rng: random.Random, store: Store) -> Tried:
    """A name in a run folder leads elsewhere, or is something else; nothing outside is changed, and nobody waits."""
    name, reader, kind = rng.choice((*PLAIN, "impala")), rng.choice(READERS), rng.choice(NODES)
    with scratch() as place:
        run, outside = store.copy(SETUPS[name], place / "run"), place / "outside"
        outside.mkdir()
        target = rng.choice(sorted(run.rglob("*")) + [run / word for word in ("tensorboard", "best", "run.owner")])
        relative = target.relative_to(run)
        kind = _replace(target, kind, outside)
        what = f"{relative} is a {kind}, read by {reader} of {name}"
        before = contents(outside)
        process = read_by(reader, run, place)
        code = process.wait(SOON)
        try:
            check_end(code, {0, 2, 3, 6, 7}, process.err, None)
        except Broken as error:
            raise Broken(f"{what}: {error}") from None
        hold(contents(outside) == before, f"{what}: what is outside was changed")
        known = {"run", "outside", "out.txt", "err.txt", "other"}
        hold({path.name for path in place.iterdir()} <= known, f"{what}: something was written outside")
    return Tried(f"{what}: code {code}")


def _replace(target: Path, kind: str, outside: Path) -> str:
    """Put something else where a name is. Returns what it is now."""
    goal, was_folder = outside / "goal", target.is_dir()
    if was_folder:
        shutil.copytree(target, goal)
        shutil.rmtree(target)
    elif target.exists():
        shutil.copy(target, goal)
        target.unlink()
    else:
        goal.write_text("outside")
    if kind == "hard link" and not was_folder:
        os.link(goal, target)
    elif kind == "dangling":
        target.symlink_to(outside / "nothing")
    elif kind == "loop":
        target.symlink_to(target.name)
    elif kind == "device" and os.geteuid() == 0:
        os.mknod(target, 0o20666, os.makedev(1, 5))  # /dev/zero
    elif kind == "socket" and len(str(target)) < 100:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(target))
    elif kind == "folder":
        (target / "inner").mkdir(parents=True)
    elif kind == "file":
        target.write_bytes(b"no such thing")
    elif kind in ("fifo", "device", "socket"):
        os.mkfifo(target)
        return "fifo"
    elif kind != "absent":
        target.symlink_to(goal)
        return "link"
    return kind


def paths(rng: random.Random, store: Store) -> Tried:
    """A value from which a path could be made is a path that leads outside, and all checksums are right."""
    name, reader = rng.choice(("sac", "her_sac", "ppo")), rng.choice(READERS)
    words = ("../../outside", "/../../outside/x", "..", "/", "\0", "a/b", "outside\n", "x" * 5000, "~", "$HOME", "-rf")
    with scratch() as place:
        run, word = store.copy(SETUPS[name], place / "run"), rng.choice(words)
        (place / "outside").mkdir()
        checkpoint = _only_newest(run / "checkpoints")
        manifest = json.loads((checkpoint / "manifest.json").read_bytes())
        files = {"status.json": run / "status.json", "versions.json": run / "versions.json"}
        file = rng.choice(("manifest", "manifest", "status.json", "versions.json"))
        parsed = manifest if file == "manifest" else json.loads(files[file].read_bytes())
        path, parent, key = rng.choice(list(changes.leaves(parsed)))
        if isinstance(parent, dict) and rng.random() < 0.3:
            parent[word] = parent.pop(key)
        else:
            parent[key] = word
        if file == "manifest":
            changes.sign(checkpoint, manifest, files=False)
        else:
            files[file].write_text(json.dumps(parsed))
        what = f"{word[:40]!r} at {file}{path} of {name}, read by {reader}"
        process = read_by(reader, run, place)
        try:
            check_end(process.wait(SOON), {0, 2, 7}, process.err, None)
        except Broken as error:
            raise Broken(f"{what}: {error}") from None
        hold(contents(place / "outside") == {}, f"{what}: something was written outside")
        known = {"run", "outside", "out.txt", "err.txt", "other"}
        hold({path.name for path in place.iterdir()} <= known, f"{what}: something was written outside")
    return Tried(what)


DATA: dict[str, tuple[Callable[[random.Random, Store], Tried], float]] = {
    "mutations": (mutations, 14),
    "damages": (damages, 8),
    "configs": (configs, 8),
    "links": (links, 9),
    "paths": (paths, 4),
}
