"""Rows that are appended and forgotten but never changed: what a checkpoint need not write twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Piece(NamedTuple):
    """Rows [begin[n], end[n]) of every column n, one column after another, uint8 [K, row_bytes]."""

    begin: Sequence[int]
    end: Sequence[int]
    rows: Tensor


@dataclass(frozen=True)
class AppendLog:
    """A large part of a state, such as the contents of a replay, as columns of numbered rows.

    A row keeps its number and its bytes for as long as it counts. So a checkpoint writes only the rows that are new
    since the one before, as a file that later checkpoints refer to. It is a view of what it was taken from: read it
    before that changes.

    Attributes:
        begin: Number of the oldest row of each column that counts.
        end: One past the number of the newest.
        read: The rows between two lists of numbers, as pieces; what was saved gives pieces that cover them.
    """

    begin: Sequence[int]
    end: Sequence[int]
    read: Callable[[Sequence[int], Sequence[int]], Iterator[Piece]]

    def pieces(self) -> Iterator[Piece]:
        """All that counts, oldest first."""
        return self.read(self.begin, self.end)
