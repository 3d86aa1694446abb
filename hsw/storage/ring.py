"""The memory of a replay: a ring of records for each environment, each observation kept once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

from hsw.append_log import AppendLog, Piece
from hsw.errors import ConfigError
from hsw.storage.records import check_records, describe
from hsw.template import StateError

_PIECE_BYTES = 2**26  # what a piece of a AppendLog takes in memory beside the ring

EMPTY = "the replay is empty; add transitions before drawing from it"

# What stands in a record's field "offsets" where it holds no transition.
PENDING, LAST = -1, -2  # the running episode's newest observation; an ended episode's last one
_BOTH = np.arange(2)[:, None]  # a row and the next


class Ring:
    """Records of N environments, numbered from 0 for each; row k of an environment is in its slot k % slots.

    The record after a transition holds the observation that it led to. After an episode's end that record is no
    transition, and the next episode begins in the one after it.

    Args:
        num_envs: N.
        capacity: Transitions of one environment.
        dtype: Of a record. Its field "offsets", int32, is the transition's step within its episode, or one of the
            marks above.
        zeros: zeros(size, dtype) gives the memory; NumPy's is of pages that the system provides when first written.
    """

    def __init__(
        self, num_envs: int, capacity: int, dtype: np.dtype, zeros: Callable[[int, np.dtype], np.ndarray] = np.zeros
    ) -> None:
        self.num_envs, self.slots = num_envs, capacity + 1  # one for the observation that the newest one led to
        self._held = zeros(num_envs * self.slots + 1, dtype)  # one that is never set lies behind the last
        self.memory = self._held[:-1]
        self._bytes = self.memory.view(np.uint8).reshape(len(self.memory), dtype.itemsize)
        # What NumPy copies as wholes: a record, and a record with the one that lies behind it.
        self._items = self.memory.view(np.dtype((np.void, dtype.itemsize)))
        two = self._held[:2].view(np.dtype((np.void, 2 * dtype.itemsize)))
        self._pairs = as_strided(two, self.memory.shape, self.memory.strides, writeable=False)
        self.offsets = np.full(len(self.memory), PENDING, np.int32)  # a copy of the records', close together
        self._base = np.arange(num_envs) * self.slots
        self._floors = np.zeros(num_envs, np.int64)  # the first row since a reset
        self.heads = np.zeros(num_envs, np.int64)  # the next transition's row
        self.steps = np.zeros(num_envs, np.int64)  # transitions of the running episode
        # One row of every env, and the observations that it leads to: what append stores.
        self.row, self.following = np.zeros((2, num_envs), dtype)
        self.following["offsets"] = PENDING
        self._row_items, self._following_items = (rows.view(self._items.dtype) for rows in (self.row, self.following))

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, envs: np.ndarray) -> None:
        """Store row and following of these envs."""
        heads, steps = self.heads[envs], self.steps[envs]
        self.row["offsets"][envs] = steps
        here, there = self.places(envs, heads + _BOTH)
        self._items[here], self._items[there] = self._row_items[envs], self._following_items[envs]
        self.offsets[here], self.offsets[there] = steps, PENDING
        self.heads[envs] = heads + 1
        self.steps[envs] = steps + 1

    def end(self, envs: np.ndarray) -> None:
        """The pending observation of these envs was their episode's last; the next row begins another."""
        here = self.places(envs, self.heads[envs])
        self.offsets[here] = self.memory["offsets"][here] = LAST
        self.heads[envs] += 1
        self.steps[envs] = 0

    def reset(self) -> None:
        """Forget every row; numbers are not given twice."""
        self._floors[:] = self.heads = self.heads + (self.steps > 0)
        self.steps[:] = 0

    # -- reading ----------------------------------------------------------------------------------------------------

    def lows(self) -> np.ndarray:
        """The oldest row of each env that still stands, [N]."""
        written = self.heads + (self.steps > 0)
        lows: np.ndarray = np.maximum(self._floors, written - self.slots)
        return lows

    def places(self, envs: Any, rows: Any) -> np.ndarray:
        """Indices of rows into the memory."""
        places: np.ndarray = self._base[envs] + rows % self.slots
        return places

    def moved(self, places: np.ndarray, by: Any) -> np.ndarray:
        """Places so many rows later or earlier, at most a whole ring, in the same env."""
        slots = places % self.slots if self.num_envs > 1 else places
        moved = slots + by
        outside = moved.view(np.uint64) >= self.slots  # also what is below 0
        if np.count_nonzero(outside):  # few are, and seldom
            moved[outside] %= self.slots
        there: np.ndarray = moved if slots is places else places - slots + moved
        return there

    def records(self, places: np.ndarray) -> np.ndarray:
        """A copy of the records at these places."""
        return self._items.take(places).view(self.memory.dtype)

    def pairs(self, places: np.ndarray) -> np.ndarray:
        """A copy of the records at these places, each with the next row's of its env, [B, 2]."""
        pairs: np.ndarray = self._pairs[places].view(self.memory.dtype).reshape(-1, 2)
        last = (places if self.num_envs == 1 else places % self.slots) == self.slots - 1
        if np.count_nonzero(last):  # what follows these is in the first slot
            pairs[last, 1] = self.records(places[last] - (self.slots - 1))
        return pairs

    def draw(self, firsts: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Places of transitions among the rows from firsts on, uniformly and with replacement, [size].

        Raises:
            ConfigError: If there is none.
        """
        counts = self.heads - firsts
        ends = np.cumsum(counts)
        if ends[-1] == 0:
            raise ConfigError(EMPTY)
        found: list[np.ndarray] = []
        missing = size
        while missing > 0:  # again if the draws met too many last observations, which are no transitions
            draws = (random.random(missing + missing // 8 + 8) * ends[-1]).astype(np.int64)
            if self.num_envs == 1:
                places = (firsts[0] + draws) % self.slots
            else:
                envs = ends.searchsorted(draws, "right")
                places = self.places(envs, draws - (ends - counts - firsts)[envs])
            found.append(places[self.offsets.take(places) >= 0][:missing])
            missing -= len(found[-1])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def ordered(self, firsts: np.ndarray) -> np.ndarray:
        """Places of all transitions from these rows on, env after env, oldest first."""
        places = self._span(firsts, self.heads)
        found: np.ndarray = places[self.offsets[places] >= 0]
        return found

    def _span(self, begin: Sequence[int] | np.ndarray, end: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = [self.places(n, np.arange(begin[n], end[n])) for n in range(self.num_envs)]
        return np.concatenate(rows)

    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of all records, the pending ones too, env after env, oldest first, and the env of each, [K]."""
        begin, end = self.lows(), self.heads + (self.steps > 0)
        return self.records(self._span(begin, end)), np.repeat(np.arange(self.num_envs), end - begin)

    def fill(self, records: np.ndarray, envs: np.ndarray) -> None:
        """Replace all records by what contents returned.

        Raises:
            ConfigError: If an environment has more of them than slots.
        """
        self.reset()
        counts = np.bincount(envs, minlength=self.num_envs)
        if len(counts) > self.num_envs or counts.max() > self.slots:
            raise ConfigError(f"records of {counts.tolist()} rows do not fit {self.num_envs} rings of {self.slots}")
        newest = np.full(self.num_envs, LAST)
        newest[envs] = records["offsets"]  # of each env's records the last one stays
        places = self._span(self._floors, self._floors + counts)
        order = np.argsort(envs, kind="stable")
        self.memory[places], self.offsets[places] = records[order], records["offsets"][order]
        self.heads = self._floors + counts - (newest == PENDING)
        before = self.offsets[self.places(np.arange(self.num_envs), self.heads - 1)]
        self.steps = np.where(newest == PENDING, before + 1, 0)

    # -- saving -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All rows as a AppendLog, and what is beside them."""
        pending = self._bytes[self.places(np.arange(self.num_envs), self.heads)]
        return {
            "layout": self._layout,
            "rows": AppendLog(self.lows().tolist(), self.heads.tolist(), self._read),
            "pending": torch.from_numpy(pending),
            "steps": self.steps.tolist(),
        }

    @property
    def _layout(self) -> list[Any]:
        return [self.num_envs, self.slots, *describe(self.memory.dtype)]

    def _read(self, begin: Sequence[int], end: Sequence[int]) -> Iterator[Piece]:
        rows = max(1, _PIECE_BYTES // (self.num_envs * self.memory.itemsize))
        first, last = np.array(begin), np.array(end)
        while (first < last).any():
            until = np.minimum(first + rows, last)
            yield Piece(first.tolist(), until.tolist(), torch.from_numpy(self._bytes[self._span(first, until)]))
            first = until

    def load_state_dict(self, state: dict[str, Any], choices: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """Restore what state_dict returned.

        Args:
            state: As saved.
            choices: Of the fields that are choices, how many each has along the last axis.

        Raises:
            StateError: If it is of another size or of other spaces, or no rows that a ring can hold.
        """
        if state["layout"] != self._layout:
            raise StateError(f"the saved replay has the layout {state['layout']}, and this one {self._layout}")
        log: AppendLog = state["rows"]
        self._floors = np.array(log.begin)
        self.heads, self.steps = np.array(log.end), np.array(state["steps"])
        if state["pending"].shape[1] != self._bytes.shape[1]:
            raise StateError(f"the saved replay's pending rows must have {self._bytes.shape[1]} bytes")
        if np.any(self.heads + (self.steps > 0) - self._floors > self.slots):
            raise StateError(f"the saved replay has more rows than the {self.slots} that fit")
        for piece in log.pieces():
            if piece.rows.shape[1] != self._bytes.shape[1]:
                raise StateError(f"the saved replay's rows must have {self._bytes.shape[1]} bytes")
            begin = np.maximum(piece.begin, self._floors)  # what was saved may begin with rows that count no more
            kept = [np.arange(b, e) >= f for b, e, f in zip(piece.begin, piece.end, begin, strict=True)]
            rows = piece.rows.numpy()[np.concatenate(kept)]
            self._put(self._span(begin, np.maximum(piece.end, begin)), rows, choices or {})
        self._put(self.places(np.arange(self.num_envs), self.heads), state["pending"].numpy(), choices or {})
        self._check_episodes()

    def _put(self, places: np.ndarray, rows: np.ndarray, choices: Mapping[str, tuple[int, ...]]) -> None:
        records = rows.view(self.memory.dtype)[:, 0]
        check_records(records, choices)
        self._bytes[places] = rows
        self.offsets[places] = records["offsets"]

    def _check_episodes(self) -> None:
        """Refuse rows whose steps within their episodes do not follow one another: a draw would look for ever."""
        for n in range(self.num_envs):
            rows = np.arange(self._floors[n], self.heads[n])
            offsets = self.offsets[self.places(n, rows)].astype(np.int64)
            before, here = offsets[:-1], offsets[1:]
            follows = np.where(before >= 0, (here == before + 1) | (here == LAST), (before == LAST) & (here == 0))
            newest = int(offsets[-1]) if len(offsets) else LAST
            running = int(self.steps[n])
            pending = int(self.offsets[self.places(n, self.heads[n])])
            ends = newest == LAST if running == 0 else newest == running - 1 and pending == PENDING
            if not (follows.all() and ends and (not len(offsets) or offsets[0] >= 0 or offsets[0] == LAST)):
                raise StateError(f"the saved replay's rows of environment {n} are no episodes")
