"""Checkpoints of several ranks: each writes its own part, and the first makes a checkpoint of them once all are there.

What all ranks have alike, the policy and the algorithm with its optimisers, is in the first one's part alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hsw.directory import Directory
from hsw.errors import CorruptError, ResourceError
from hsw.ranks import Ranks
from hsw.run import checkpoint, state_files
from hsw.run.checkpoint import Loaded

_ALIKE = ("policy", "algorithm")


def _first_of(told: list[dict[str, Any]] | None) -> str | None:
    return next((one["complaint"] for one in told or () if one["complaint"]), None)


class RankParts:
    """This rank's side of the checkpoints in a folder that all ranks see.

    Args:
        ranks: Which this is, of how many. They make the same calls in the same order.
        folder: Of the checkpoints.
    """

    def __init__(self, ranks: Ranks, folder: Path) -> None:
        self.ranks, self.folder = ranks, folder

    def save(self, state: Callable[[], dict[str, Any]], meta: dict[str, Any], keep: int, previous: Path | None) -> Path:
        """As save_checkpoint, of every rank's state. The ranks wait for one another.

        Raises:
            ResourceError: On every rank, if the disk does not take it; what was there before is untouched.
        """
        begun = self.ranks.first(self._begin)
        try:
            part = {"error": begun["error"]} if "error" in begun else self._write(begun["name"], state, previous)
            parts = self.ranks.each(part)
            done = self.ranks.first(lambda: self._finish(begun, parts or [], meta, keep, previous))
        except BaseException:  # a rank is lost
            if self.ranks.is_first and "name" in begun:
                with contextlib.suppress(OSError), Directory.open(self.folder, follow=False) as directory:
                    checkpoint.discard(directory, begun["name"])
            raise
        if "error" in done:
            raise ResourceError(done["error"])
        return self.folder / str(done["name"])

    def _begin(self) -> dict[str, Any]:
        try:
            with Directory.open(self.folder, create=True, follow=False) as directory:
                number = checkpoint.next_number(directory)
                name = f".writing-{number:06d}-{os.getpid()}"
                directory.remove(name)
                directory.enter(name, create=True).close()
                return {"name": name, "number": number}
        except OSError as error:
            return {"error": self._refusal(error)}

    def _write(self, name: str, state: Callable[[], dict[str, Any]], previous: Path | None) -> dict[str, Any]:
        rank = self.ranks.rank
        try:
            own = {key: value for key, value in state().items() if not rank or key not in _ALIKE}
            with Directory.open(self.folder, follow=False) as directory, directory.enter(name) as here:
                part = state_files.write_part(directory, here, own, rank, previous)
                here.sync()
                return part
        except OSError as error:
            return {"error": ("" if rank == 0 else f"rank {rank}: ") + self._refusal(error)}

    def _finish(
        self, begun: dict[str, Any], parts: list[dict[str, Any]], meta: dict[str, Any], keep: int, previous: Path | None
    ) -> dict[str, Any]:
        failed = next((part["error"] for part in parts if "error" in part), None)
        try:
            with Directory.open(self.folder, follow=False) as directory:
                if failed is None:
                    try:
                        with directory.enter(begun["name"]) as here:
                            state_files.write_manifest(here, meta, parts)
                        checkpoint.publish(directory, begun["name"], begun["number"], keep, previous)
                    except OSError as error:
                        failed = self._refusal(error)
                if failed is not None and "name" in begun:
                    checkpoint.discard(directory, begun["name"])
        except OSError as error:
            failed = failed or self._refusal(error)
        return {"name": f"{begun['number']:06d}"} if failed is None else {"error": failed}

    def load(self) -> Loaded:
        """As load_newest: the newest checkpoint of which every rank can read its part.

        Raises:
            CorruptError: On every rank, if there is none.
        """
        complaints: list[str] = []
        for number in reversed(self.ranks.first(lambda: checkpoint.list_checkpoints(self.folder))):
            path = self.folder / f"{number:06d}"
            state, meta, complaint = self._read(path)
            worst = self.ranks.first(partial(_first_of, self.ranks.each({"complaint": complaint})))
            if worst is None:
                return Loaded(state, meta, complaints, path)
            complaints.append(worst)
        detail = "; ".join(complaints) or "there is none"
        raise CorruptError(f"no checkpoint in {self.folder} can be read: {detail}")

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any], str | None]:
        rank, size = self.ranks.rank, self.ranks.size
        try:
            if (ranks := state_files.ranks_of(path)) != size:
                raise CorruptError(f"checkpoint {path} is of {ranks} ranks, and these are {size}")
            state, meta = checkpoint.read_state(path, rank=rank)
            if rank:
                alike, _ = checkpoint.read_state(path, rows=False)
                state |= {key: alike[key] for key in _ALIKE if key in alike}
            return state, meta, None
        except CorruptError as error:
            return {}, {}, f"rank {rank}: {error}" if rank else str(error)

    def _refusal(self, error: OSError) -> str:
        return f"cannot write a checkpoint into {self.folder}: {error.strerror or error}"
