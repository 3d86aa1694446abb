"""Encoders: from an observation to a vector of features. out_dim says how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hsw.errors import ConfigError
from hsw.network.convolution import ConvEncoder, ImpalaResNet, MinAtarCNN, NatureCNN, ProcgenResNet
from hsw.network.layers import ACTIVATIONS, orthogonal
from hsw.spaces import SpaceSpec

EncoderName = Literal["auto", "mlp", "dict", "minatar", "nature_cnn", "impala_resnet", "procgen_resnet", "auto_0_1"]
# What a policy takes: a name, or a callable that takes the SpaceSpec and returns a module with out_dim.
Encoder = EncoderName | Callable[..., Any]
_CONVOLUTIONAL: dict[str, Callable[[SpaceSpec], ConvEncoder]] = {
    "minatar": MinAtarCNN,
    "nature_cnn": NatureCNN,
    "impala_resnet": ImpalaResNet,
    "procgen_resnet": ProcgenResNet,
}


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
        features: Tensor = self.layers(self.flatten(obs))
        return features


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
        if self.event_dims == 0:
            return obs.unsqueeze(-1)
        return obs.flatten(1) if self.event_dims != 1 else obs


class DictEncoder(nn.Module):
    """Encodes each part of a Dict observation by itself: images by a convolution, the vectors together by one MLP.

    Args:
        space: A Dict.
        hidden_sizes, activation: Of the MLP.
        rule: Which parts are images: "auto" or "auto_0_1", see sees_image.
    """

    def __init__(
        self,
        space: SpaceSpec,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        rule: Encoder = "auto",
    ) -> None:
        super().__init__()
        own = {key: part for key, part in space.spaces.items() if sees_image(part, rule) or part.type == "Dict"}
        self.parts = nn.ModuleDict({key: make_encoder(rule, own[key], hidden_sizes, activation) for key in own})
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
    width: int = encoder.out_dim
    return width


def sees_image(space: SpaceSpec, encoder: Encoder) -> bool:
    """Whether an encoder that looks at the space itself takes it for an image.

    auto_0_1, the rule of hsw 0.1.0, knows three dimensions of bytes only; and so do the names that ask for one network.
    """
    return space.is_image or (encoder in ("auto", "dict") and space.image_layout is not None)


def make_encoder(encoder: Encoder, space: SpaceSpec, hidden_sizes: Sequence[int], activation: str) -> Any:
    """An encoder by name, or by a callable that takes the SpaceSpec and returns a module with out_dim.

    "auto" takes the DictEncoder for dicts, for images (SpaceSpec.image_layout) the network made for their size, and the
    MLP for everything else. "auto_0_1" is what it was in hsw 0.1.0; run folders of that time mean it.

    Raises:
        ConfigError: If there is no encoder of that name, or the callable's has no out_dim.
        ValueError: If it does not take such observations.
    """
    if not isinstance(encoder, str):
        made = encoder(space)
        if not isinstance(getattr(made, "out_dim", None), int):
            raise ConfigError(f"encoder {type(made).__name__} must say in out_dim how many features it gives")
        return made
    rule: Encoder = "auto_0_1" if encoder == "auto_0_1" else "auto"
    if encoder == rule:
        encoder = "mlp"
        if space.type == "Dict":
            encoder = "dict"
        elif sees_image(space, rule):
            smallest = sorted((1, *space.shape)[-3:])[1]
            encoder = "minatar" if smallest < 36 else "nature_cnn" if smallest >= 84 else "impala_resnet"
    if (encoder == "dict") != (space.type == "Dict"):
        raise ConfigError(f"encoder={encoder} does not take {space.type} observations; use encoder=auto")
    if encoder == "mlp":
        return MLP(space, hidden_sizes, activation)
    if encoder == "dict":
        return DictEncoder(space, hidden_sizes, activation, rule)
    if encoder not in _CONVOLUTIONAL:
        raise ConfigError(f"there is no encoder {encoder}; use auto, mlp, dict, {', '.join(_CONVOLUTIONAL)}")
    return _CONVOLUTIONAL[encoder](space)


def describe_encoder(encoder: Any, space: SpaceSpec) -> dict[str, str]:
    """What reads which part of an observation: {"": "MLP 64-64 (4 float32)"}, or a part's name for each of a Dict."""
    return dict(_described(encoder, space, ""))


def _described(encoder: Any, space: SpaceSpec, name: str) -> Iterator[tuple[str, str]]:
    if not isinstance(encoder, DictEncoder):
        yield name, f"{_network(encoder)} ({_shown(space, encoder)})"
        return
    parts, mlp = dict(encoder.parts.items()), getattr(encoder, "mlp", None)
    for key, part in space.spaces.items():
        yield from _described(parts.get(key, mlp), part, f"{name}.{key}" if name else key)


def _network(encoder: Any) -> str:
    if isinstance(encoder, MLP):
        sizes = [layer.out_features for layer in encoder.layers.children() if isinstance(layer, nn.Linear)]
        return f"MLP {'-'.join(map(str, sizes))}".strip()
    return type(encoder).__name__


def describe_space(space: SpaceSpec) -> str:
    """An observation in a few words: 84x84x4 uint8."""
    if space.nvec:
        return f"{'x'.join(map(str, space.nvec))} choices"
    return f"{'x'.join(map(str, space.shape))} {space.dtype}".strip()


def _shown(space: SpaceSpec, encoder: Any) -> str:
    shape = describe_space(space)
    if not isinstance(encoder, ConvEncoder):
        return shape
    layout, channels = encoder.input.layout, encoder.input.channels
    order = "one channel" if channels == 1 else "channels last" if layout.endswith("C") else "channels first"
    return f"{shape}, {order}" + (f", {space.shape[0]} frames" if layout.startswith("K") else "")
