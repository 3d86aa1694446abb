"""Catch: the ball falls, and only where it lands pays."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import hsw.env.catch  # noqa: F401, registers it

ROWS, COLUMNS = 10, 5


def play(seed: int, choose) -> tuple[list[np.ndarray], list[float]]:
    """A whole episode; choose(ball, paddle) gives the action."""
    env = gym.make("Catch-v0")
    boards, rewards, done = [env.reset(seed=seed)[0]], [], False
    while not done:
        ball = int(boards[-1][:-1].any(0).argmax())
        paddle = int(boards[-1][-1].argmax())
        board, reward, done, truncated, _ = env.step(choose(ball, paddle))
        assert not truncated
        boards.append(board)
        rewards.append(reward)
    return boards, rewards


@pytest.mark.parametrize(("direction", "reward"), [(1, 1.0), (0, -1.0)])
def test_following_the_ball_catches_it_and_fleeing_does_not(direction: int, reward: float) -> None:
    for seed in range(20):
        follow = lambda ball, paddle: 1 + int(np.sign(ball - paddle))
        flee = lambda ball, paddle: 2 if paddle > ball or (paddle == ball and ball < COLUMNS - 1) else 0
        boards, rewards = play(seed, follow if direction else flee)
        assert rewards == [0.0] * (ROWS - 2) + [reward]
        assert len(boards) == ROWS


def test_the_ball_falls_a_row_at_a_step_in_a_column_of_the_seed() -> None:
    boards, _ = play(3, lambda ball, paddle: 1)
    balls = [np.argwhere(board[:-1]).tolist() for board in boards[:-1]]
    column = balls[0][0][1]
    assert balls == [[[t, column]] for t in range(ROWS - 1)]
    assert all(board[-1].tolist() == [0, 0, 1, 0, 0] for board in boards[:-1])
    assert {int(play(seed, lambda *_: 1)[0][0][0].argmax()) for seed in range(30)} == set(range(COLUMNS))


def test_the_paddle_stays_on_the_board() -> None:
    boards, _ = play(0, lambda ball, paddle: 0)
    assert [board[-1].argmax() for board in boards[:4]] == [2, 1, 0, 0]
    assert gym.make("Catch-v0").observation_space.contains(boards[-1])
