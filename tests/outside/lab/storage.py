"""A storage that changes one thing of hsw's, and repeats none of its arguments."""

from __future__ import annotations

from typing import Annotated, Any

from hsw.bounds import Range
from hsw.storage import RolloutStorage


class DearSteps(RolloutStorage):
    """A rollout in which every step costs something."""

    def __init__(self, *args: Any, cost: Annotated[float, Range(0)] = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cost = cost

    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **kwargs)
        self.rewards[self.step - 1] -= self.cost * self.valid[self.step - 1]
