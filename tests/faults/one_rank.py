"""An environment that is a culprit on rank 1 alone, and may take its time."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym

from tests.envs import Counter
from tests.faults.culprits import WHATS


class OneRank(Counter):
    def __init__(self, what: str = "nothing", pause: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what, self.pause = what, pause

    def step(self, action: Any) -> Any:
        result = super().step(action)
        time.sleep(self.pause)
        if self.failing and os.environ.get("RANK") == "1":
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            WHATS[self.what]()
        return result


gym.register("OneRank-v0", OneRank)
