"""Encoders: from an observation to a vector of features. out_dim says how many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hsw.spaces import SpaceSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """Orthogonal weights and zero biases (Saxe et al. 2014). Returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers, each followed by the activation.

    Args:
        space: A Box, flattened; Discrete and MultiDiscrete observations enter one-hot.
        hidden_sizes: Width of each layer.
        activation: A name in ACTIVATIONS.
    """

    def __init__(self, space: SpaceSpec, hidden_sizes: Sequence[int] = (64, 64), activation: str = "tanh") -> None:
        super().__init__()
        self.flatten = Flatten(space)
        sizes = [self.flatten.out_dim, *hidden_sizes]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [orthogonal(nn.Linear(fan_in, fan_out), 2**0.5), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers)
        self.out_dim = sizes[-1]

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(self.flatten(obs))


class Flatten(nn.Module):
    """An observation as one float vector: bytes over 255, categories one-hot, the rest as it is."""

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        self.nvec = space.nvec
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0
        self.cast = space.dtype != "float32"
        self.event_dims = len(space.shape)
        self.out_dim = sum(space.nvec) if space.nvec else int(torch.Size(space.shape).numel())
        self.is_identity = not self.nvec and not self.cast and self.event_dims == 1

    def forward(self, obs: Tensor) -> Tensor:
        if self.nvec:
            columns = obs.long().unsqueeze(-1) if len(self.nvec) == 1 and self.event_dims == 0 else obs.long()
            hot = [nn.functional.one_hot(columns[..., i], n) for i, n in enumerate(self.nvec)]
            return torch.cat(hot, -1).float()
        if self.cast:
            obs = obs.float()
        if self.scale != 1.0:
            obs = obs * self.scale
        return obs.flatten(1) if self.event_dims != 1 else obs


class ImageInput(nn.Module):
    """Pixels [B, C, H, W] or [B, H, W, C] as float [B, C, H, W] in channels_last memory.

    Convolutions on the CPU run about 1.5 times as fast in that order, and [B, H, W, C] is in it already.
    """

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        if len(space.shape) != 3:
            raise ValueError(f"a convolutional encoder needs images, not observations of shape {space.shape}")
        self.channels_last = space.shape[-1] < space.shape[0]
        self.channels = space.shape[-1] if self.channels_last else space.shape[0]
        self.size = space.shape[:2] if self.channels_last else space.shape[1:]
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0

    def forward(self, obs: Tensor) -> Tensor:
        obs = obs.permute(0, 3, 1, 2) if self.channels_last else obs
        # Reordered while still bytes, a quarter of what it would move as floats.
        return obs.contiguous(memory_format=torch.channels_last).float().mul_(self.scale)


class ConvEncoder(nn.Module):
    """A stack of convolutions and one linear layer."""

    def __init__(self, space: SpaceSpec, layers: Callable[[int], nn.Sequential], out_dim: int, gain: float) -> None:
        super().__init__()
        self.input = ImageInput(space)
        self.convs = layers(self.input.channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            try:
                features = self.convs(torch.zeros(1, self.input.channels, *self.input.size)).numel()
            except RuntimeError as error:
                raise ValueError(f"images of shape {space.shape} are too small for {type(self).__name__}") from error
        self.linear = orthogonal(nn.Linear(features, out_dim), gain)
        self.out_dim = out_dim

    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(self.convs(self.input(obs)).flatten(1)).relu()


class NatureCNN(ConvEncoder):
    """The network of Mnih et al. 2015 (doi:10.1038/nature14236), for 84x84 images."""

    def __init__(self, space: SpaceSpec, out_dim: int = 512) -> None:
        def layers(channels: int) -> nn.Sequential:
            return nn.Sequential(
                orthogonal(nn.Conv2d(channels, 32, 8, 4), 2**0.5),
                nn.ReLU(),
                orthogonal(nn.Conv2d(32, 64, 4, 2), 2**0.5),
                nn.ReLU(),
                orthogonal(nn.Conv2d(64, 64, 3, 1), 2**0.5),
                nn.ReLU(),
            )

        super().__init__(space, layers, out_dim, 2**0.5)


class MinAtarCNN(ConvEncoder):
    """One 3x3 convolution with 16 channels, for 10x10 grids (Young & Tian 2019, arXiv:1903.03176)."""

    def __init__(self, space: SpaceSpec, out_dim: int = 128) -> None:
        def layers(channels: int) -> nn.Sequential:
            return nn.Sequential(orthogonal(nn.Conv2d(channels, 16, 3), 2**0.5), nn.ReLU())

        super().__init__(space, layers, out_dim, 2**0.5)


class ImpalaResNet(ConvEncoder):
    """IMPALA's residual network (Espeholt et al. 2018, arXiv:1802.01561): three blocks of 16, 32 and 32 channels."""

    def __init__(self, space: SpaceSpec, out_dim: int = 256, channels: Sequence[int] = (16, 32, 32)) -> None:
        def layers(in_channels: int) -> nn.Sequential:
            sizes = [in_channels, *channels]
            blocks = [_ImpalaBlock(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
            return nn.Sequential(*blocks, nn.ReLU())

        super().__init__(space, layers, out_dim, 2**0.5)


class _ImpalaBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.residuals = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(fan_out, fan_out, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(fan_out, fan_out, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        for residual in self.residuals:
            x = x + residual(x)
        return x


class DictEncoder(nn.Module):
    """Encodes each part of a Dict observation by itself: images by a convolution, the vectors together by one MLP."""

    def __init__(self, space: SpaceSpec, hidden_sizes: Sequence[int] = (64, 64), activation: str = "tanh") -> None:
        super().__init__()
        own = {key: part for key, part in space.spaces.items() if part.is_image or part.type == "Dict"}
        self.parts = nn.ModuleDict({key: make_encoder("auto", own[key], hidden_sizes, activation) for key in own})
        self.vectors = nn.ModuleDict({key: Flatten(part) for key, part in space.spaces.items() if key not in own})
        self.out_dim = sum(_width(encoder) for encoder in self.parts.values())
        if self.vectors:
            width = sum(_width(part) for part in self.vectors.values())
            self.mlp = MLP(SpaceSpec("Box", (width,)), hidden_sizes, activation)
            self.out_dim += self.mlp.out_dim

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        features = [encoder(obs[key]) for key, encoder in self.parts.items()]
        if self.vectors:
            features.append(self.mlp(torch.cat([part(obs[key]) for key, part in self.vectors.items()], -1)))
        return torch.cat(features, -1)


def _width(encoder: Any) -> int:
    return encoder.out_dim


def make_encoder(encoder: Any, space: SpaceSpec, hidden_sizes: Sequence[int], activation: str) -> Any:
    """An encoder by name, or by a callable that takes the SpaceSpec and returns a module with out_dim.

    "auto" takes the MLP for vectors, the DictEncoder for dicts, and for images the network made for their size.

    Raises:
        ValueError: If there is no encoder of that name, or it does not take such observations.
    """
    if callable(encoder):
        return encoder(space)
    if encoder == "auto":
        encoder = "mlp"
        if space.type == "Dict":
            encoder = "dict"
        elif space.is_image:
            smallest = sorted(space.shape)[1]
            encoder = "minatar" if smallest < 36 else "nature_cnn" if smallest >= 84 else "impala_resnet"
    if (encoder == "dict") != (space.type == "Dict"):
        raise ValueError(f"encoder={encoder} does not take {space.type} observations; use encoder=auto")
    if encoder == "mlp":
        return MLP(space, hidden_sizes, activation)
    if encoder == "dict":
        return DictEncoder(space, hidden_sizes, activation)
    convolutional = {"minatar": MinAtarCNN, "nature_cnn": NatureCNN, "impala_resnet": ImpalaResNet}
    if encoder not in convolutional:
        raise ValueError(f"there is no encoder {encoder}; use auto, mlp, dict, {', '.join(convolutional)}")
    return convolutional[encoder](space)
