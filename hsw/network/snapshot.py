"""Small MLPs on the CPU while they act: the same arithmetic with a third of the overhead around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hsw.network.encoder import MLP
from hsw.network.forward import is_adapted

_ACTIVATIONS: dict[type, Callable[..., Any]] = {nn.Tanh: np.tanh, nn.ReLU: partial(np.maximum, 0.0)}


class Snapshot:
    """MLPs of one shape with the linear layers behind them, as their weights are now, in NumPy.

    On a handful of rows an operation's overhead is its cost. One batched product does a layer of two networks, and
    NumPy's overhead is a third of torch's.

    Args:
        encoders: One, or two of the same shape.
        heads: What follows each directly; fewer where nothing does.
    """

    def __init__(self, encoders: Sequence[MLP], heads: Sequence[nn.Linear] = ()) -> None:
        self._flatten = None if encoders[0].flatten.is_identity else encoders[0].flatten
        alike = list(zip(*(encoder.layers for encoder in encoders), strict=True))
        self._layers = [
            (*_arrays(layers), _ACTIVATIONS[type(then[0])])
            for layers, then in zip(alike[::2], alike[1::2], strict=True)
        ]
        self._alone = len(encoders) == 1
        # Views in torch's order: the product's last bits depend on it.
        self._heads = [(head.weight.detach().numpy().T, head.bias.detach().numpy()) for head in heads]
        self.most_multiplications = max(layers[0].weight.numel() for layers in alike[::2])

    @classmethod
    def of(cls, encoders: Sequence[Any], heads: Sequence[nn.Linear] = ()) -> Snapshot | None:
        """The same of any encoders, or None where they are no such MLPs on the CPU, or compute in another way."""
        parts = [*encoders, *heads]
        if any(type(encoder) is not MLP for encoder in encoders) or any(map(is_adapted, parts)):
            return None
        first, *others = (list(encoder.layers) for encoder in encoders)
        if not first or not first[0].weight.is_cpu or any(type(then) not in _ACTIVATIONS for then in first[1::2]):
            return None
        same = all(list(map(str, other)) == list(map(str, first)) for other in others)
        return cls(encoders, heads) if same else None

    def __call__(self, obs: Tensor) -> tuple[list[Tensor], Tensor]:
        """The heads' outputs, [B, ...] each, and the first encoder's features, [B, out_dim]."""
        x: np.ndarray = (obs if self._flatten is None else self._flatten(obs)).numpy()
        for weights, biases, activation in self._layers:
            x = np.matmul(x, weights)
            x += biases
            activation(x, out=x)
        features = [x] if self._alone else x
        outputs = [own @ weights + biases for own, (weights, biases) in zip(features, self._heads, strict=False)]
        return [torch.from_numpy(output) for output in outputs], torch.from_numpy(features[0])


def _arrays(layers: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Copies of one layer's weights, [in, out], and biases, [out]; of two, [2, in, out] and [2, 1, out]."""
    weights = np.stack([layer.weight.detach().numpy().T for layer in layers])
    biases = np.stack([layer.bias.detach().numpy()[None] for layer in layers])
    alone = len(layers) == 1
    return np.ascontiguousarray(weights[0] if alone else weights), biases[0, 0] if alone else biases
