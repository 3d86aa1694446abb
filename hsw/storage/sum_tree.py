"""A tree of sums: numbers that are drawn as often as they are large."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_WIDTH = 16  # children of a node: wide enough that few levels are gone through, narrow enough to look at all of them
_TOP = 4096  # nodes at most that are searched at once, at the top


class SumTree:
    """Non-negative numbers, any of which can be changed and by which places can be drawn in logarithmic time.

    Every node is the sum of its children as they are, so that nothing drifts however often numbers change.

    Args:
        size: How many numbers; they begin as 0.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._levels = [np.zeros(-(-size // _WIDTH) * _WIDTH)]
        while len(self._levels[-1]) > _TOP:
            nodes = len(self._levels[-1]) // _WIDTH
            self._levels.append(np.zeros(-(-nodes // _WIDTH) * _WIDTH))

    @property
    def values(self) -> np.ndarray:
        """The numbers, [size]; to be read only."""
        return self._levels[0][: self.size]

    @property
    def total(self) -> float:
        return float(self._levels[-1].sum())

    def set(self, places: np.ndarray, values: np.ndarray | float) -> None:
        """Change numbers.

        Args:
            places: [K]; of one that comes twice the last counts.
            values: [K], or one for all.
        """
        self._levels[0][places] = values
        for below, above in pairwise(self._levels):
            places = np.unique(places // _WIDTH)
            above[places] = below.reshape(-1, _WIDTH)[places].sum(1)

    def fill(self, values: np.ndarray) -> None:
        """Change all numbers, [size]."""
        self._levels[0][: self.size] = values
        for below, above in pairwise(self._levels):
            above[: len(below) // _WIDTH] = below.reshape(-1, _WIDTH).sum(1)

    def draw(self, parts: np.ndarray) -> np.ndarray:
        """The places at which the running sum of the numbers first exceeds these parts of the total.

        Args:
            parts: In [0, 1), [K].

        Returns:
            Places, [K], of numbers that are not 0.
        """
        top = np.cumsum(self._levels[-1])
        left = parts * top[-1]
        last = top.searchsorted(top[-1])  # rounding may exceed all
        found: np.ndarray = np.minimum(top.searchsorted(left, "right"), last)
        left -= top[found] - self._levels[-1][found]
        columns = np.arange(len(left))
        for level in reversed(self._levels[:-1]):
            # [_WIDTH, K]: the running sums are then additions of whole rows, at half of cumsum's time.
            children = np.ascontiguousarray(level.reshape(-1, _WIDTH).take(found, 0).T)
            sums = children.copy()
            for before, after in pairwise(sums):
                after += before
            # The last child that is not 0 takes what rounding has left over.
            passed = (sums <= left) & (sums < sums[-1])
            child = passed.view(np.int8).sum(0, dtype=np.int8).astype(np.intp)
            cells = child * len(columns) + columns
            left -= sums.take(cells) - children.take(cells)
            found = found * _WIDTH + child
        return found
