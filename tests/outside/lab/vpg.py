"""An algorithm."""

from __future__ import annotations

from typing import Annotated, Any

from torch.optim import Optimizer

from hsw.algorithm import Algorithm
from hsw.bounds import Range


class VPG(Algorithm):
    """Vanilla policy gradient with a learned baseline (Sutton et al. 1999)."""

    def __init__(
        self,
        policy: Any,
        lr: Annotated[float, Range(0)] = 1e-2,
        value_coef: Annotated[float, Range(0)] = 0.5,
        entropy_coef: Annotated[float, Range(0)] = 0.01,
    ) -> None:
        super().__init__(policy)
        self.lr, self.value_coef, self.entropy_coef = lr, value_coef, entropy_coef
        self.parameters = list(policy.parameters())

    def make_optimizer(self, name: str = "all") -> Optimizer:
        return self.optimizer(name, self.parameters, self.lr)

    def update(self, storage: Any) -> dict[str, float]:
        self.num_updates += 1
        for batch in storage.generate_batches(1, None):
            log_probs, entropies, values = self.policy.evaluate(batch.obs, batch.actions)
            policy_loss = -(log_probs * batch.advantages).mean()
            value_loss = (values - batch.returns).square().mean()
            loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropies.mean()
            self.descend(self.make_optimizer(), loss, max_grad_norm=0.5, batch=batch)
        return {"policy_loss": float(policy_loss), "value_loss": float(value_loss)}
