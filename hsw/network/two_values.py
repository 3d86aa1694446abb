"""The networks of an agent that values its own rewards apart from the environment's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from hsw.network.actor_critic import ActorCritic
from hsw.network.layers import orthogonal


class TwoValueActorCritic(ActorCritic):
    """An ActorCritic with two values: of the environment's rewards, and of the intrinsic ones (Burda et al. 2018,
    arXiv:1810.12894). Where ActorCritic gives values, [B], it gives both, [B, 2].

    Args: as in ActorCritic.
    """

    extras: ClassVar[tuple[str, ...]] = ("log_probs", "values", "intrinsic_values")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.value_head = orthogonal(nn.Linear(self.value_head.in_features, 2), 1.0)

    def acting(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        actions, extras = super().act(obs, deterministic)
        values, intrinsic = extras["values"].unbind(-1)
        return actions, {**extras, "values": values, "intrinsic_values": intrinsic}
