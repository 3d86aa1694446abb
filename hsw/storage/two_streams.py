"""The rollout of an agent that rewards itself, and values these rewards apart from the environment's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.returns import continuing_gae, gae
from hsw.spaces import SpaceLike
from hsw.storage.batches import RolloutBatch
from hsw.storage.rollout import RolloutStorage


@dataclass(frozen=True)
class TwoStreamBatch(RolloutBatch):
    """A RolloutBatch, whose advantages are of both streams; values and returns are of the environment's."""

    intrinsic_values: Tensor
    intrinsic_returns: Tensor


class TwoStreamRolloutStorage(RolloutStorage):
    """A rollout with two streams of rewards (Burda et al. 2018, arXiv:1810.12894, section 2.3).

    Args:
        observation_space, action_space, device, num_steps, num_envs, discount, gae_lambda: As in RolloutStorage.
        intrinsic_discount: Of the intrinsic rewards.
        episodic: Their stream ends where episodes do; else the next episode's rewards count too.
        reward_coef, intrinsic_coef: Weights of the streams' advantages in their sum.
    """

    Batch = TwoStreamBatch
    intrinsic_values: Tensor  # [T + 1, N]
    intrinsic_rewards: Tensor  # [T, N]; the loop writes them before before_gradients
    intrinsic_returns: Tensor

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        device: str = "cpu",
        num_steps: Annotated[int, Range(1)] = 256,
        num_envs: Annotated[int, Range(1)] = 8,
        discount: Annotated[float, Range(0, 1)] = 0.999,
        gae_lambda: Annotated[float, Range(0, 1)] = 0.95,
        intrinsic_discount: Annotated[float, Range(0, 1)] = 0.99,
        episodic: bool = False,
        reward_coef: Annotated[float, Range(0)] = 2.0,
        intrinsic_coef: Annotated[float, Range(0)] = 1.0,
    ) -> None:
        super().__init__(observation_space, action_space, device, num_steps, num_envs, discount, gae_lambda)
        self.intrinsic_discount, self.episodic = intrinsic_discount, episodic
        self.reward_coef, self.intrinsic_coef = reward_coef, intrinsic_coef

    def init_tensors(self, sample: dict[str, Any]) -> None:
        super().init_tensors(sample)
        rows = self.rewards
        self.intrinsic_values = torch.cat([torch.zeros_like(rows), torch.zeros_like(rows[:1])])
        self.intrinsic_rewards, self.intrinsic_returns = torch.zeros_like(rows), torch.zeros_like(rows)
        self._view_rows()

    def add(  # type: ignore[override]
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_obs: Any,
        log_probs: Any,
        values: Any,
        intrinsic_values: Any,
        *,
        valid: Any = None,
    ) -> None:
        """Store one step of every environment: RolloutStorage.add's arguments, and V of the intrinsic rewards, [N]."""
        extras = {"log_probs": log_probs, "values": values, "intrinsic_values": intrinsic_values}
        self._insert(obs, actions, rewards, terminateds, truncateds, next_obs, valid, extras)

    def compute_returns_and_advantages(self, last_values: Any) -> None:
        """Fill returns, intrinsic_returns, and the weighted sum of both streams' advantages.

        Args:
            last_values: Both V of the last row's next_obs, [N, 2]: the environment's and the intrinsic; [N] is both.
        """
        last = torch.as_tensor(last_values, device=self.device).detach().view(self.num_envs, -1)
        super().compute_returns_and_advantages(last[:, 0])
        self.intrinsic_values[-1] = last[:, -1]
        rewards, values, discount = self.intrinsic_rewards, self.intrinsic_values, self.intrinsic_discount
        if self.episodic:
            flags = self.terminateds, self.truncateds
            own = gae(rewards, values, *flags, discount, self.gae_lambda, self.valid)
        else:
            own = continuing_gae(rewards, values, discount, self.gae_lambda, self.valid)
        torch.add(own, self.intrinsic_values[:-1], out=self.intrinsic_returns)
        self.advantages.mul_(self.reward_coef).add_(own, alpha=self.intrinsic_coef)

    def reset(self) -> None:
        super().reset()
        if self.obs is not None:
            self.intrinsic_rewards.zero_()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if state["made"]:
            made = {name: getattr(self, name).clone().cpu() for name in ("intrinsic_values", "intrinsic_returns")}
            state["made"] |= made
        return state
