"""IMPALA: an actor-critic that corrects for the lag of its actors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch

from hsw.algorithm.metrics import explained_variance, policy_std
from hsw.algorithm.single_optimizer import SingleOptimizer
from hsw.bounds import Range
from hsw.network import RecurrentActorCritic
from hsw.returns import vtrace
from hsw.schedule import Schedule
from hsw.storage import DistributedStorage


class IMPALA(SingleOptimizer):
    """IMPALA (Espeholt et al. 2018, arXiv:1802.01561).

    Args:
        policy: A RecurrentActorCritic.
        lr: Step size.
        lr_schedule: Of lr; "linear" takes it to 0 over the run's steps.
        discount: Per environment step.
        rho_bar, c_bar, trace_lambda: V-trace's, see hsw.returns.vtrace.
        clip_reward: Rewards are clipped to ±this; None leaves them.
        value_coef, entropy_coef: Weights of the loss's terms; the value loss is half the squared error.
        max_grad_norm: The gradient's norm is clipped to it.
        reduction: The loss is the sum over a batch's valid steps, as in the paper, or their mean.
        optimizer: RMSProp (decay 0.99, no momentum) or Adam.
        eps: The optimiser's.
        entropy_schedule: Of entropy_coef.
    """

    policy_type = RecurrentActorCritic
    storage_type = DistributedStorage

    def __init__(
        self,
        policy: RecurrentActorCritic,
        lr: Annotated[float, Range(0)] = 6e-4,
        lr_schedule: Schedule = "linear",
        discount: Annotated[float, Range(0, 1)] = 0.99,
        rho_bar: Annotated[float, Range(0, open_low=True)] = 1.0,
        c_bar: Annotated[float, Range(0, open_low=True)] = 1.0,
        trace_lambda: Annotated[float, Range(0, 1)] = 1.0,
        clip_reward: Annotated[float | None, Range(0, open_low=True)] = 1.0,
        value_coef: Annotated[float, Range(0)] = 0.5,
        entropy_coef: Annotated[float, Range(0)] = 0.01,
        max_grad_norm: Annotated[float, Range(0, open_low=True)] = 40.0,
        reduction: Literal["sum", "mean"] = "sum",
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        eps: Annotated[float, Range(0, open_low=True)] = 0.01,
        entropy_schedule: Schedule = "constant",
    ) -> None:
        super().__init__(policy, lr, lr_schedule, eps, optimizer)
        self.discount, self.rho_bar, self.c_bar, self.trace_lambda = discount, rho_bar, c_bar, trace_lambda
        self.clip_reward, self.reduction = clip_reward, reduction
        self.value_coef, self.entropy_coef, self.max_grad_norm = value_coef, entropy_coef, max_grad_norm
        self.entropy_schedule = entropy_schedule

    def update(self, storage: Any) -> dict[str, float]:
        """One step on one batch of B windows of T steps."""
        self.num_updates += 1
        batch, optimizer = next(storage.generate_batches(1)), self.make_optimizer()
        inputs = batch.obs, batch.last_actions, batch.last_rewards, batch.starts
        params, values = self.policy.unroll(*inputs, batch.init_actor_states)
        # Row t's obs is where step t - 1 led. The last row has an observation and no step.
        actions, behaviour, rewards, terminateds, truncateds, valid = (
            batch[name][:-1] for name in ("actions", "log_probs", "rewards", "terminateds", "truncateds", "valid")
        )
        if self.clip_reward is not None:
            rewards = rewards.clamp(-self.clip_reward, self.clip_reward)
        flat = self.policy.distribution.log_prob_and_entropy(params[:-1].flatten(0, 1), actions.flatten(0, 1))
        log_probs, entropies = (part.view_as(rewards) for part in flat)
        targets, advantages = vtrace(
            log_probs.detach() - behaviour,
            rewards,
            values.detach(),
            terminateds,
            truncateds,
            self.discount,
            self.rho_bar,
            self.c_bar,
            self.trace_lambda,
            valid,
        )
        policy_loss = -(log_probs * advantages).sum()  # advantages are 0 on rows that are not valid
        value_loss = 0.5 * ((targets - values[:-1]).square() * valid).sum()
        entropy = (entropies * valid).sum()
        entropy_coef = self.scheduled(self.entropy_coef, self.entropy_schedule)
        loss = policy_loss + self.value_coef * value_loss - entropy_coef * entropy
        count = valid.sum().clamp(min=1)
        rows = valid.sum() if self.reduction == "mean" else None
        norm = self.descend(
            optimizer, loss if rows is None else loss / count, self.max_grad_norm, batch, rows=rows, summed=rows is None
        )
        figures = torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach()]) / count
        kl = ((behaviour - log_probs.detach()) * valid).sum() / count  # of the actors' policies from the learner's
        known = values[:-1].detach()[valid]
        told = torch.stack([kl, known.sum() / count, explained_variance(known, targets[valid])]).tolist()
        info = dict(zip(("policy_loss", "value_loss", "entropy"), figures.tolist(), strict=True))
        return {
            **info,
            "behaviour_kl": told[0],
            "grad_norm": norm,
            "lr": optimizer.param_groups[0]["lr"],
            "loss": info["policy_loss"] + self.value_coef * info["value_loss"] - entropy_coef * info["entropy"],
            "value": told[1],
            "explained_variance": told[2],
            **policy_std(self.policy),
        }
