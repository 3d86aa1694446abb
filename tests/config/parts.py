"""Parts of a user's own that hand on what they do not name."""

from __future__ import annotations

from typing import Any

from hsw.agent import OnPolicyAgent
from hsw.algorithm import PPO
from hsw.network import ActorCritic
from hsw.storage import RolloutStorage


class P2(PPO):
    def __init__(self, policy: Any, foo: int = 1, **kwargs: Any) -> None:
        super().__init__(policy, **kwargs)
        self.foo = foo


class P3(P2):
    def __init__(self, policy: Any, bar: float, **kwargs: Any) -> None:
        super().__init__(policy, **kwargs)
        self.bar = bar


class Rollout(RolloutStorage):
    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **kwargs)


class Network(ActorCritic):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Loop(OnPolicyAgent):
    def __init__(self, env: Any, **kwargs: Any) -> None:
        super().__init__(env, **kwargs)


class Anything:
    def __init__(self, first: int, **kwargs: Any) -> None:
        self.first, self.rest = first, kwargs


class Stop:
    def __init__(self, patience: int = 3) -> None:
        self.patience = patience
