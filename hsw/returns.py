"""Returns and advantages: pure functions of tensors, time first, no state.

Time is aligned as everywhere in hsw: values[t + 1] is the value of where step t led, also at a done; the row after a
done is a reset row and is not valid.
"""

from __future__ import annotations

from typing import Any

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
    num_steps = rewards.shape[0]
    for name, flags in (("terminateds", terminateds), ("truncateds", truncateds), ("valid", valid)):
        if flags is not None and flags.shape != rewards.shape:
            raise ValueError(f"{name} has shape {tuple(flags.shape)}, expected rewards' {tuple(rewards.shape)}")
    if values.shape != (num_steps + 1, *rewards.shape[1:]):
        raise ValueError(f"values has shape {tuple(values.shape)}, expected one row more than {tuple(rewards.shape)}")

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
