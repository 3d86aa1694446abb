"""Changes of observations that leave their meaning: learning sees more of them than were collected."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.errors import ConfigError
from hsw.spaces import leaves, tree_map


class RandomShift:
    """Shifts every image by up to `pad` pixels in both directions, drawn uniformly (Kostrikov et al. 2021,
    arXiv:2004.13649); its edge is repeated where nothing was.

    Args:
        pad: Pixels.
    """

    def __init__(self, pad: Annotated[int, Range(1)] = 4) -> None:
        self.pad = pad

    def augment(self, obs: Any) -> Any:
        """Shifted images, [B, C, H, W] or [B, H, W, C], in their own dtype; other parts of a dict as they are.

        Raises:
            ConfigError: If there is no image.
        """
        if all(part.ndim != 4 for part in leaves(obs)):
            raise ConfigError("RandomShift needs observations that are images; leave augmentation out")
        return tree_map(lambda part: self._shift(part) if part.ndim == 4 else part, obs)

    def _shift(self, images: Tensor) -> Tensor:
        if images.shape[1] > images.shape[3]:  # channels last
            return self._shift(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        num, _, height, width = images.shape
        device = images.device
        shifts = torch.randint(-self.pad, self.pad + 1, (2, num, 1), device=device)
        rows, columns = (
            (torch.arange(size, device=device) + shift).clamp(0, size - 1)
            for size, shift in zip((height, width), shifts, strict=True)
        )
        index = torch.arange(num, device=device).view(-1, 1, 1)
        # With the channels between the indices, these come first: [B, H, W, C].
        return images[index, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
