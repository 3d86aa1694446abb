"""Catch: a ball falls, a paddle moves; the smallest environment with a delayed reward."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Catch(gym.Env):
    """A ball falls one row at a step from a random column; the paddle on the last row moves left, stays or moves right.

    As in Mnih et al. 2014 (arXiv:1406.6247) and bsuite (Osband et al. 2020, arXiv:1908.03568). The reward comes at the
    end: 1 if the paddle is where the ball lands, else -1.

    Args:
        rows, columns: Of the board. Observations are the board, [rows, columns], 1 where the ball or the paddle is.
    """

    def __init__(self, rows: int = 10, columns: int = 5) -> None:
        self.rows, self.columns = rows, columns
        self.observation_space = gym.spaces.Box(0, 1, (rows, columns), np.float32)
        self.action_space = gym.spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.row, self.ball = 0, int(self.np_random.integers(self.columns))
        self.paddle = self.columns // 2
        return self._board(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.paddle = min(max(self.paddle + int(action) - 1, 0), self.columns - 1)
        self.row += 1
        landed = self.row == self.rows - 1
        reward = (1.0 if self.paddle == self.ball else -1.0) if landed else 0.0
        return self._board(), reward, landed, False, {}

    def _board(self) -> np.ndarray:
        board = np.zeros((self.rows, self.columns), np.float32)
        board[self.row, self.ball] = board[-1, self.paddle] = 1.0
        return board


gym.register("Catch-v0", "hsw.env.catch:Catch")
