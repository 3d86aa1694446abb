"""Doors: an environment in which most actions are closed at any moment, for tests of action masks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Doors(gym.Env):
    """A corridor of rooms; in each a few of many doors are open, and one of these leads on.

    A closed door costs a step and keeps the room. `info["action_mask"]`, bool [num_doors], says which doors are open;
    one that is open and does not lead on goes back a room. The observation is the room and, where it is asked for, the
    mask. Which doors are open and which leads on is the same in every episode. The last room's door pays 1, each step
    beyond the num_rooms that it takes costs 1 / max_steps, and the best return is 1.

    Args:
        num_rooms, num_doors, num_open: Rooms, doors in each, and how many of them are open.
        max_steps: The episode is truncated then.
        mask_in_obs: Observations are a dict of room, [num_rooms] one-hot, and action_mask.
        mapping_seed: Of the doors.

    Raises:
        ValueError: If there is no door to take.
    """

    def __init__(
        self,
        num_rooms: int = 6,
        num_doors: int = 16,
        num_open: int = 3,
        max_steps: int = 60,
        mask_in_obs: bool = False,
        mapping_seed: int = 0,
    ) -> None:
        if not 1 <= num_open <= num_doors:
            raise ValueError(f"num_open={num_open} must be from 1 to num_doors={num_doors}")
        draw = np.random.default_rng(mapping_seed)
        opened = np.stack([draw.permutation(num_doors)[:num_open] for _ in range(num_rooms)])
        self.masks = np.zeros((num_rooms, num_doors), bool)
        np.put_along_axis(self.masks, opened, True, 1)
        self.leads_on = opened[:, 0]
        self.num_rooms, self.max_steps, self.mask_in_obs = num_rooms, max_steps, mask_in_obs
        room = gym.spaces.Box(0, 1, (num_rooms,), np.float32)
        self.observation_space: gym.Space[Any] = room
        if mask_in_obs:
            self.observation_space = gym.spaces.Dict(room=room, action_mask=gym.spaces.MultiBinary(num_doors))
        self.action_space = gym.spaces.Discrete(num_doors)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.room = self.steps = 0
        return self._observe(), self._info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if action == self.leads_on[self.room]:
            self.room += 1
        elif self.masks[self.room, action]:
            self.room = max(self.room - 1, 0)
        terminated = self.room == self.num_rooms
        self.room = min(self.room, self.num_rooms - 1)
        truncated = self.steps >= self.max_steps and not terminated
        reward = float(terminated) - (self.steps > self.num_rooms) / self.max_steps
        return self._observe(), reward, terminated, truncated, {**self._info(), "is_success": terminated}

    def _observe(self) -> Any:
        room = np.zeros(self.num_rooms, np.float32)
        room[self.room] = 1.0
        return {"room": room, "action_mask": self.masks[self.room].astype(np.int8)} if self.mask_in_obs else room

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.masks[self.room].copy()}


gym.register("Doors-v0", "hsw.env.doors:Doors")
