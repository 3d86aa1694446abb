"""Returns and advantages: pure functions of tensors, time first, no state.

Time is aligned as everywhere in hsw: values[t + 1] is the value of where step t led, also at a done; the row after a
done is a reset row and is not valid.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    terminateds: Tensor,
    truncateds: Tensor,
    discount: float,
    gae_lambda: float,
    valid: Tensor | None = None,
) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438).

    delta_t = r_t + discount * (1 - terminated_t) * V_{t+1} - V_t
    A_t = delta_t + discount * lambda * (1 - done_t) * A_{t+1}, done = terminated or truncated.

    Args:
        rewards: Reward of each step, [T, N].
        values: V of obs[0..T], [T + 1, N]; values[t + 1] is where step t led.
        terminateds: The step reached a terminal state, [T, N], bool. Stops bootstrapping.
        truncateds: The step was cut off by a limit, [T, N], bool. Bootstraps, but ends the trace.
        discount: Per environment step, in [0, 1].
        gae_lambda: Trace decay, in [0, 1].
        valid: False on reset rows, [T, N]; None means that every row is valid.

    Returns:
        Advantages, [T, N], not normalised, 0 on rows that are not valid.

    Raises:
        ValueError: If shapes disagree.
    """
    _check_shapes(rewards, values, terminateds=terminateds, truncateds=truncateds, valid=valid)
    # The same arithmetic runs on NumPy views (small arrays: a third of torch's overhead) and on device tensors.
    arrays: list[Any] = [rewards, values, terminateds, truncateds, valid]
    if rewards.device.type == "cpu":
        arrays = [None if array is None else array.detach().numpy() for array in arrays]
    r, v, terminal, cut, counts = arrays
    deltas: Any = r + discount * v[1:] * ~terminal - v[:-1]
    decays: Any = (discount * gae_lambda) * ~(terminal | cut)
    if counts is not None:
        # A reset row starts nothing and passes nothing on; the done before it has already cut the trace.
        deltas *= counts
        decays *= counts
    return torch.as_tensor(discounted_sum(deltas, decays))


def continuing_gae(rewards: Tensor, values: Tensor, discount: float, gae_lambda: float, valid: Tensor) -> Tensor:
    """gae of a stream that no episode's end concerns: it goes on in the next one (Burda et al. 2018, arXiv:1810.12894,
    section 2.3). A reset row is left out, so that the step before it led to where the next episode began.

    Args:
        rewards, valid: [T, N].
        values: [T + 1, N].
        discount, gae_lambda: As in gae.

    Returns:
        Advantages, [T, N], 0 on rows that are not valid.
    """
    _check_shapes(rewards, values, valid=valid)
    advantages, following, advantage = torch.zeros_like(rewards), values[-1], torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        now = valid[t]
        delta = rewards[t] + discount * following - values[t]
        advantage = torch.where(now, delta + discount * gae_lambda * advantage, advantage)
        following = torch.where(now, values[t], following)
        advantages[t] = advantage * now
    return advantages


class VTrace(NamedTuple):
    """Value targets and policy-gradient advantages, [T, N] each, without gradients and 0 on rows that are not valid."""

    targets: Tensor
    advantages: Tensor


@torch.no_grad()
def vtrace(
    log_ratios: Tensor,
    rewards: Tensor,
    values: Tensor,
    terminateds: Tensor,
    truncateds: Tensor,
    discount: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    trace_lambda: float = 1.0,
    valid: Tensor | None = None,
) -> VTrace:
    """V-trace (Espeholt et al. 2018, arXiv:1802.01561, section 4.1), with truncations bootstrapped and cut.

    delta_t = min(rho_bar, rho_t) * (r_t + discount * (1 - terminated_t) * V_{t+1} - V_t)
    vs_t = V_t + delta_t + discount * (1 - done_t) * lambda * min(c_bar, rho_t) * (vs_{t+1} - V_{t+1})
    A_t = min(rho_bar, rho_t) * (r_t + discount * (1 - terminated_t) * next_t - V_t), where next_t is vs_{t+1} within an
    episode and V_{t+1}, the value of its last observation, at a truncation and at the window's end.

    Args:
        log_ratios: log(pi(a_t | s_t) / mu(a_t | s_t)), so that rho_t is its exponential, [T, N].
        rewards, values, terminateds, truncateds, discount, valid: As in gae.
        rho_bar: Decides which value function is learnt; infinity is the target policy's.
        c_bar: Cuts the traces; decides how fast.
        trace_lambda: Further decay of the traces, in [0, 1].

    Returns:
        The targets vs and the advantages A.

    Raises:
        ValueError: If shapes disagree.
    """
    _check_shapes(rewards, values, log_ratios=log_ratios, terminateds=terminateds, truncateds=truncateds, valid=valid)
    counts = torch.ones_like(terminateds) if valid is None else valid
    ratios = log_ratios.exp()
    rhos = ratios.clamp(max=rho_bar) * counts
    following = values[1:]
    deltas = rhos * (rewards + discount * following * ~terminateds - values[:-1])
    decays = discount * trace_lambda * (ratios.clamp(max=c_bar) * ~(terminateds | truncateds) * counts)
    targets = values[:-1] * counts + discounted_sum(deltas, decays)
    # At a truncation the next row is a reset row and holds no target; its value is the final observation's.
    targets_next = torch.cat([targets[1:], following[-1:]])
    targets_next = torch.where(truncateds, following, targets_next)
    return VTrace(targets, rhos * (rewards + discount * targets_next * ~terminateds - values[:-1]))


def _check_shapes(rewards: Tensor, values: Tensor, **others: Tensor | None) -> None:
    for name, other in others.items():
        if other is not None and other.shape != rewards.shape:
            raise ValueError(f"{name} has shape {tuple(other.shape)}, expected rewards' {tuple(rewards.shape)}")
    if values.shape != (len(rewards) + 1, *rewards.shape[1:]):
        raise ValueError(f"values has shape {tuple(values.shape)}, expected one row more than {tuple(rewards.shape)}")


def discounted_sum(deltas: Any, decays: Any) -> Any:
    """x_t = delta_t + decay_t * x_{t+1}, x_T = 0, for all t in log2(T) passes (Hillis & Steele 1986).

    After the pass with stride k, deltas[t] holds the sum over the next 2k steps and decays[t] their product. A dozen
    vector operations take the place of T small ones.

    Args:
        deltas: [T, N], a NumPy array or a tensor; overwritten with the result.
        decays: [T, N], likewise; overwritten.

    Returns:
        deltas.
    """
    stride = 1
    while stride < len(deltas):
        deltas[:-stride] += decays[:-stride] * deltas[stride:]
        decays[:-stride] = decays[:-stride] * decays[stride:]
        stride *= 2
    return deltas
