"""Changes of observations that leave their meaning: learning sees more of them than were collected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.spaces import leaves, tree_map


class _OfImages(ABC):
    """Takes every pixel of an image from another place of it: one place in its height, one in its width."""

    def augment(self, obs: Any) -> Any:
        """Changed images, [B, C, H, W] or [B, H, W, C], in their own dtype; other parts of a dict as they are.

        Raises:
            ConfigError: If there is no image.
        """
        if all(part.ndim != 4 for part in leaves(obs)):
            raise ConfigError(f"{type(self).__name__} needs observations that are images; leave augmentation out")
        return tree_map(lambda part: self._moved(part) if part.ndim == 4 else part, obs)

    @abstractmethod
    def _places(self, num: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """From which row and from which column each pixel of B images comes, [B, H] and [B, W]."""

    def _moved(self, images: Tensor) -> Tensor:
        if images.shape[1] > images.shape[3]:  # channels last
            return self._moved(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        num, _, height, width = images.shape
        rows, columns = self._places(num, height, width, images.device)
        index = torch.arange(num, device=images.device).view(-1, 1, 1)
        # With the channels between the indices, these come first: [B, H, W, C].
        return images[index, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


class RandomShift(_OfImages):
    """Shifts every image by up to `pad` pixels in both directions, drawn uniformly (Kostrikov et al. 2021,
    arXiv:2004.13649); its edge is repeated where nothing was.

    Args:
        pad: Pixels.
    """

    def __init__(self, pad: Annotated[int, Range(1)] = 4) -> None:
        self.pad = pad

    def _places(self, num: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        shifts = torch.randint(-self.pad, self.pad + 1, (2, num, 1), device=device)
        rows, columns = (
            (torch.arange(size, device=device) + shift).clamp(0, size - 1)
            for size, shift in zip((height, width), shifts, strict=True)
        )
        return rows, columns


class RandomCrop(_OfImages):
    """A window of every image, at a place drawn uniformly and enlarged to the whole (Laskin et al. 2020,
    arXiv:2004.14990); each pixel takes the nearest of the window's.

    Args:
        part: Of the image's height and width that the window has.
    """

    def __init__(self, part: Annotated[float, Range(0, 1, open_low=True)] = 0.85) -> None:
        self.part = part

    def _places(self, num: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        places = []
        for size in (height, width):
            window = max(1, round(self.part * size))
            first = torch.randint(size - window + 1, (num, 1), device=device)
            places.append(first + torch.arange(size, device=device) * window // size)
        return places[0], places[1]


class GaussianNoise:
    """Adds normal noise, drawn for every number (Laskin et al. 2020, arXiv:2004.14990).

    Args:
        std: Its standard deviation; of images of bytes in parts of 255.
    """

    def __init__(self, std: Annotated[float, Range(0)] = 0.05) -> None:
        self.std = std

    def augment(self, obs: Any) -> Any:
        """Observations with noise, in their own dtype; parts that are choices as they are.

        Raises:
            ConfigError: If all of them are choices.
        """
        return _numbers("GaussianNoise", obs, lambda part, unit: part + torch.randn_like(part) * (self.std * unit))


class AmplitudeScaling:
    """Multiplies every observation by a number of its own, drawn uniformly (Laskin et al. 2020, arXiv:2004.14990).

    Args:
        low, high: The number's bounds.
    """

    def __init__(self, low: Annotated[float, Range(0)] = 0.6, high: Annotated[float, Range(0)] = 1.2) -> None:
        if low > high:
            raise ConfigError(f"augmentation.low={low} must not be above augmentation.high={high}")
        self.low, self.high = low, high

    def augment(self, obs: Any) -> Any:
        """Scaled observations, in their own dtype; of a dict all parts by the same number, choices as they are.

        Raises:
            ConfigError: If all of them are choices.
        """
        num, device = next((len(part), part.device) for part in leaves(obs))
        scale = self.low + (self.high - self.low) * torch.rand(num, device=device)
        return _numbers(
            "AmplitudeScaling", obs, lambda part, _: part * scale.view(-1, *[1] * (part.ndim - 1)).to(part.dtype)
        )


def _numbers(name: str, obs: Any, change: Callable[[Tensor, float], Tensor]) -> Any:
    """Observations whose parts that are numbers were changed; bytes are rounded, and kept in their range."""

    def changed(part: Tensor) -> Tensor:
        if part.is_floating_point():
            return change(part, 1.0)
        if part.dtype == torch.uint8:
            return change(part.float(), 255.0).round_().clamp_(0, 255).to(torch.uint8)
        return part

    if not any(part.is_floating_point() or part.dtype == torch.uint8 for part in leaves(obs)):
        raise ConfigError(f"{name} needs observations that are numbers or images; leave augmentation out")
    return tree_map(changed, obs)
