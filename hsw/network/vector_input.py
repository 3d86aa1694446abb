"""Observations as one vector for a network, normalised if asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hsw.moments import merge, merge_ranks, told
from hsw.network.encoder import Encoder, Flatten, describe_space, sees_image
from hsw.ranks import current
from hsw.spaces import SpaceSpec, leaves


class VectorInput(nn.Module):
    """A vector, or a dict of vectors, as one float vector in the order of the keys.

    Its statistics belong to the policy and not to the environment, because a replay keeps observations for longer than
    their statistics hold, and goals in hindsight are compared as they are.

    Args:
        space: A Box, Discrete, MultiDiscrete or MultiBinary, or a Dict of them.
        normalize: (x - mean) / std of what observe has seen, clipped to ±10.
    """

    clip = 10.0
    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, space: SpaceSpec, normalize: bool = False) -> None:
        super().__init__()
        self.spaces = dict(_named(space))
        parts = [Flatten(part) for part in self.spaces.values()]
        self.parts = nn.ModuleList(parts)
        self.out_dim = sum(part.out_dim for part in parts)
        self.normalize = normalize
        if normalize:
            self.register_buffer("mean", torch.zeros(self.out_dim, dtype=torch.float64))
            self.register_buffer("var", torch.ones(self.out_dim, dtype=torch.float64))
            self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @classmethod
    def fits(cls, space: SpaceSpec, encoder: Encoder) -> bool:
        """Whether the space has no images in it, and no network of its own is asked for."""
        general = isinstance(encoder, str) and encoder in ("auto", "auto_0_1", "mlp", "dict")
        return general and not any(sees_image(part, encoder) for part in _vectors(space))

    def names(self, sizes: str) -> dict[str, str]:
        """Each part, and that it goes into the networks as it is."""
        return {name: f"MLP {sizes} ({describe_space(part)})" for name, part in self.spaces.items()}

    def observe(self, obs: Any) -> None:
        """Merge observations, [K, *shape] or a dict of them, into the statistics: all ranks', each with its own K."""
        if not self.normalize:
            return
        rows, ranks = self._flat(obs).double(), current()
        if ranks.size > 1:
            merged = merge_ranks(self.mean, self.var, self.count, ranks.stack(told(rows)))
        elif len(rows) > 0:
            mean = rows.mean(0)
            squares = (rows - mean).square().sum(0)
            merged = merge(self.mean, self.var, self.count, mean, squares, len(rows))
        else:
            return
        for own, new in zip((self.mean, self.var, self.count), merged, strict=True):
            own.copy_(new)

    def forward(self, obs: Any) -> Tensor:
        x = self._flat(obs)
        if not self.normalize:
            return x
        scale = (self.var + 1e-8).rsqrt()
        return ((x - self.mean.float()) * scale.float()).clamp_(-self.clip, self.clip)

    def _flat(self, obs: Any) -> Tensor:
        vectors = [part(leaf) for part, leaf in zip(self.parts, leaves(obs), strict=True)]
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, -1)


def _vectors(space: SpaceSpec) -> list[SpaceSpec]:
    return list(dict(_named(space)).values())


def _named(space: SpaceSpec, name: str = "") -> Iterator[tuple[str, SpaceSpec]]:
    """The parts of a space by their dotted names, in the order of the keys; "" for one without parts."""
    if space.type != "Dict":
        yield name, space
        return
    for key in sorted(space.spaces):
        yield from _named(space.spaces[key], f"{name}.{key}" if name else key)
