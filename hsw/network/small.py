"""Small MLPs on the CPU: the same arithmetic with a third of the overhead around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hsw.network.encoder import MLP

# Multiply-adds of a layer: with more it is arithmetic that counts, and NumPy's product may take threads for itself.
_SMALL = 2**18


class SmallMLP:
    """An MLP, with or without a linear layer behind it, as its weights are now, in NumPy.

    Args:
        encoder: The MLP.
        head: What follows it directly.
    """

    _ACTIVATIONS: ClassVar[dict[type, Callable[..., Any]]] = {nn.Tanh: np.tanh, nn.ReLU: partial(np.maximum, 0.0)}

    def __init__(self, encoder: MLP, head: nn.Linear | None = None) -> None:
        self._flatten = None if encoder.flatten.is_identity else encoder.flatten
        modules = list(encoder.layers)
        layers = [
            (layer, self._ACTIVATIONS[type(then)]) for layer, then in zip(modules[::2], modules[1::2], strict=True)
        ]
        self._layers = [(*_arrays(layer), activation) for layer, activation in layers]
        self._head = None if head is None else _arrays(head)
        self._most = _SMALL // max(weights.size for weights, _, _ in self._layers)

    @classmethod
    def of(cls, encoder: Any, head: nn.Linear | None = None) -> SmallMLP | None:
        """The same of any encoder, or None where it is no MLP on the CPU, or too large."""
        if type(encoder) is not MLP or not len(encoder.layers) or not encoder.layers[0].weight.is_cpu:
            return None
        known = all(type(module) in cls._ACTIVATIONS for module in list(encoder.layers)[1::2])
        return cls(encoder, head) if known else None

    def takes(self, num_rows: int) -> bool:
        """Whether so many rows are few enough."""
        return num_rows <= self._most

    def __call__(self, obs: Tensor) -> Tensor:
        """The last layer's output, [B, ...], of observations, [B, *shape]."""
        x: np.ndarray = (obs if self._flatten is None else self._flatten(obs)).numpy()
        for weights, biases, activation in self._layers:
            x = x @ weights
            x += biases
            activation(x, out=x)
        if self._head is not None:
            weights, biases = self._head
            x = x @ weights
            x += biases
        return torch.from_numpy(x)


def _arrays(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Copies of weights, [in, out], and biases, [out]."""
    return np.ascontiguousarray(layer.weight.detach().numpy().T), layer.bias.detach().numpy().copy()
