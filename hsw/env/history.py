"""What rebuilds the running episodes: their numbers, and every action since the oldest one began."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class RunningEpisodes:
    """Of N environments, whose episodes are a function of their number and their actions (see EpisodeEnv).

    Args:
        num_envs: N.
    """

    def __init__(self, num_envs: int) -> None:
        self._numbers = np.zeros(num_envs, np.int64)
        self._actions: list[np.ndarray] = []
        self._starts = np.zeros(num_envs, np.int64)  # of each episode, in actions

    def give_up(self) -> None:
        """Every environment begins its next episode."""
        self._numbers += 1
        self._starts[:] = 0
        self._actions.clear()

    def remember(self, actions: np.ndarray, valid: np.ndarray) -> None:
        """Add a row of actions as the environments got them, [N, *shape]; where not valid, [N], it was a reset."""
        self._actions.append(actions)
        if np.count_nonzero(valid) < len(valid):  # those episodes begin after this row
            self._starts[~valid] = len(self._actions)
            self._numbers[~valid] += 1
            oldest = int(self._starts.min())
            del self._actions[:oldest]
            self._starts -= oldest

    def replays(self) -> list[tuple[int, list[np.ndarray]]]:
        """The number and the actions of each environment's episode."""
        episodes = enumerate(zip(self._numbers, self._starts, strict=True))
        return [(int(number), [row[index] for row in self._actions[start:]]) for index, (number, start) in episodes]

    def state_dict(self) -> dict[str, Any]:
        return {
            "episode_numbers": torch.from_numpy(self._numbers.copy()),
            "starts": torch.from_numpy(self._starts.copy()),
            "actions": torch.from_numpy(np.stack(self._actions)) if self._actions else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._numbers, self._starts = state["episode_numbers"].numpy().copy(), state["starts"].numpy().copy()
        self._actions = [] if state["actions"] is None else list(state["actions"].numpy())


def differing(obs: Any, saved: Any) -> list[int]:
    """Indices of the environments whose observations differ."""
    if isinstance(obs, dict):
        return sorted({index for key in obs for index in differing(obs[key], saved[key])})
    same = (obs == saved.numpy()).reshape(len(obs), -1).all(1)
    return [int(index) for index in np.flatnonzero(~same)]
