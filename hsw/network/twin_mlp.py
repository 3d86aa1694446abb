"""Acting on the CPU with small networks: the same arithmetic with less overhead around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn


class TwinMLP:
    """A policy's two MLPs of one shape, with their heads, as their weights are now, in NumPy.

    On a handful of rows an operation's overhead is its cost. One batched product does a layer of both networks, and
    NumPy's overhead is a third of torch's.

    Args:
        encoders: The policy's and the value's MLP.
        heads: Their linear layers.
    """

    _ACTIVATIONS: ClassVar[dict[type, Callable[..., Any]]] = {nn.Tanh: np.tanh, nn.ReLU: partial(np.maximum, 0.0)}

    def __init__(self, encoders: tuple[Any, Any], heads: tuple[nn.Linear, nn.Linear]) -> None:
        self._flatten = None if encoders[0].flatten.is_identity else encoders[0].flatten
        pairs = list(zip(*(encoder.layers for encoder in encoders), strict=True))
        self._hidden = [_stacked(pair) for pair in pairs[::2]]
        self._activation = self._ACTIVATIONS[type(pairs[1][0])]
        self._heads = [(head.weight.detach().numpy().T, head.bias.detach().numpy()) for head in heads]

    @classmethod
    def fits(cls, first: Any, second: Any) -> bool:
        """Whether two MLPs are of one shape, and on the CPU."""
        if len(first.layers) == 0 or list(map(str, first.layers)) != list(map(str, second.layers)):
            return False
        return type(first.layers[1]) in cls._ACTIVATIONS and first.layers[0].weight.device.type == "cpu"

    def __call__(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The policy head's output, [B, params], the values, [B], and the policy's features, [B, out_dim]."""
        x = (obs if self._flatten is None else self._flatten(obs)).numpy()
        for weights, biases in self._hidden:
            x = np.matmul(x, weights)
            x += biases
            self._activation(x, out=x)
        (policy, policy_bias), (value, value_bias) = self._heads
        params, values = x[0] @ policy + policy_bias, x[1] @ value + value_bias
        return torch.from_numpy(params), torch.from_numpy(values[:, 0]), torch.from_numpy(x[0])


def _stacked(pair: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights, [2, in, out], and biases, [2, 1, out], of two linear layers."""
    weights = np.stack([layer.weight.detach().numpy().T for layer in pair])
    return np.ascontiguousarray(weights), np.stack([layer.bias.detach().numpy()[None] for layer in pair])
