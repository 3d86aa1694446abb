"""Pieces that the networks are made of."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """Orthogonal weights and zero biases (Saxe et al. 2014). Returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def xavier(layer: Layer) -> Layer:
    """Uniform weights of the variance that keeps signals' size (Glorot & Bengio 2010) and zero biases. Returns it."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
