"""Deep sea: a chain of choices of which one path alone pays, for tests of exploration."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class DeepSea(gym.Env):
    """A diver sinks one row a step and must go right in every one to reach the treasure.

    As in bsuite (Osband et al. 2020, arXiv:1908.03568) and Osband et al. 2019 (JMLR 20, 124): which of the two actions
    goes right differs from cell to cell, each step to the right costs 0.01 / size, and the treasure of 1 lies at the
    last row's end. The best return is 0.99, and a policy that chooses at random finds it once in 2^size episodes.

    Args:
        size: N, rows and columns. Observations are the board, [N, N], 1 where the diver is.
        randomize: Draw each cell's action from mapping_seed; else action 1 goes right everywhere.
        mapping_seed: Of the draw: it is the same in every episode and every copy of the environment.

    Raises:
        ValueError: If there are no rows.
    """

    def __init__(self, size: int = 10, randomize: bool = True, mapping_seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.size = size
        cells = (size, size)
        self.right = np.random.default_rng(mapping_seed).integers(2, size=cells) if randomize else np.ones(cells, int)
        self.observation_space = gym.spaces.Box(0, 1, cells, np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.row = self.column = 0
        self.never_left = True
        return self._board(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = bool(action == self.right[self.row, self.column])
        self.never_left &= right
        self.column = min(max(self.column + (1 if right else -1), 0), self.size - 1)
        self.row += 1
        over = self.row == self.size
        found = over and self.never_left
        reward = float(found) - (0.01 / self.size if right else 0.0)
        return self._board(), reward, over, False, {"is_success": found}

    def _board(self) -> np.ndarray:
        board = np.zeros((self.size, self.size), np.float32)
        if self.row < self.size:
            board[self.row, self.column] = 1.0
        return board


gym.register("DeepSea-v0", "hsw.env.deep_sea:DeepSea")
