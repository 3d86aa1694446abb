"""Encoders of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hsw.network.layers import orthogonal, xavier
from hsw.recycling import Recycler
from hsw.spaces import SpaceSpec, layout_of


class ImageInput(nn.Module):
    """Images in any layout that layout_of knows as float [B, C, H, W] in channels_last memory, bytes over 255.

    The frames of a stack become channels. Convolutions on the CPU run about 1.5 times as fast in that order of memory,
    and [B, H, W, C] is in it already.
    """

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        layout = layout_of(space.shape)
        if layout is None:
            raise ValueError(f"a convolutional encoder needs images, not observations of shape {space.shape}")
        self.layout = layout
        sizes = dict(zip(layout, space.shape, strict=True))
        self.channels = sizes.get("K", 1) * sizes.get("C", 1)
        self.size = sizes["H"], sizes["W"]
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0
        self._memory = Recycler()

    def forward(self, obs: Tensor) -> Tensor:
        if self.layout == "HW":
            obs = obs.unsqueeze(1)
        elif self.layout.endswith("C"):
            obs = obs.movedim(-1, -3)
        if self.layout.startswith("K"):
            obs = obs.flatten(1, 2)
        # Reordered while still bytes, a quarter of what it would move as floats.
        image = self._floats(self._channels_last(obs))
        return image if self.scale == 1.0 else image.mul_(self.scale)

    def _channels_last(self, obs: Tensor) -> Tensor:
        if obs.is_contiguous(memory_format=torch.channels_last) or not self._recycles(obs):
            return obs.contiguous(memory_format=torch.channels_last)
        return self._empty(obs, obs.dtype).copy_(obs)

    def _floats(self, obs: Tensor) -> Tensor:
        if obs.dtype == torch.float32 or not self._recycles(obs):
            return obs.float()
        return self._empty(obs, torch.float32).copy_(obs)

    def _recycles(self, obs: Tensor) -> bool:
        """On the CPU a learner's batch is so large that its memory would be the system's, and cleared, each time."""
        traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        return obs.is_cpu and self.channels > 1 and not traced and not obs.requires_grad

    def _empty(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        num, channels, height, width = like.shape
        return self._memory.empty((num, height, width, channels), dtype).movedim(-1, 1)


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
        features: Tensor = self.linear(self.convs(self.input(obs)).flatten(1))
        return features.relu()


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
            blocks = [self.block(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
            return nn.Sequential(*blocks, nn.ReLU())

        super().__init__(space, layers, out_dim, 2**0.5)

    @staticmethod
    def block(fan_in: int, fan_out: int) -> nn.Module:
        return _ImpalaBlock(fan_in, fan_out)


class ProcgenResNet(ImpalaResNet):
    """The same as DAAC's authors compute it on Procgen (Raileanu & Fergus 2021, arXiv:2102.10330).

    Their first ReLU works in place, on what is added afterwards too: a residual is relu(x) + f(x) instead of x + f(x).
    Convolutions begin with Xavier's weights and zero biases.
    """

    @staticmethod
    def block(fan_in: int, fan_out: int) -> nn.Module:
        return _ProcgenBlock(fan_in, fan_out)


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


class _ProcgenBlock(_ImpalaBlock):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                xavier(layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        for residual in self.residuals:
            x = x.relu()
            x = x + residual(x)  # whose own ReLU has nothing left to do
        return x
