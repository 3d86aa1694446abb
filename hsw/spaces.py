"""Observation and action spaces in one form, whether they come from Gymnasium, a DictConfig or a dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from hsw.errors import shortened

SUPPORTED = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict")

MASK, REST = "action_mask", "observation"  # parts of a Dict: the actions allowed, and what there is beside that

_SIDE, _CHANNELS = 32, 16  # of what is surely an image

# Everything that a user may hand over as a space.
SpaceLike = Any  # gym.Space | DictConfig | Mapping | SpaceSpec


@dataclass(frozen=True)
class SpaceSpec:
    """What a storage or a network needs to know of a space.

    Attributes:
        type: One of SUPPORTED.
        shape: Shape of one element as a tensor: () for Discrete, (k,) for MultiDiscrete and MultiBinary.
        dtype: NumPy name of the element's dtype, "int64" for Discrete and MultiDiscrete.
        low, high: Bounds of a Box, a number where they are uniform, else nested tuples of the Box's shape.
        nvec: Number of choices of each categorical dimension: (n,) for Discrete.
        spaces: The parts of a Dict, in sorted order.
        masked: The Dict's part action_mask says which actions are allowed, and is no input of networks.
    """

    type: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    low: Any = -math.inf
    high: Any = math.inf
    nvec: tuple[int, ...] = ()
    spaces: dict[str, SpaceSpec] = field(default_factory=dict)
    masked: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The tensor dtype in which elements are stored: the space's own, pixels stay uint8."""
        return torch.from_numpy(np.empty(0, self.dtype)).dtype

    @property
    def is_image(self) -> bool:
        """A three-dimensional Box of bytes or booleans: what hsw 0.1.0 knew for an image."""
        return self.type == "Box" and len(self.shape) == 3 and self.dtype in ("uint8", "bool")

    @property
    def image_layout(self) -> str | None:
        """How an image lies in the space, as layout_of says it; None where it is not surely an image.

        Three dimensions of bytes or booleans are one, of any size. Of other numbers, one end must be at most 16
        channels or frames and the other two sides at least 32 pixels. Two dimensions are one if both are at least 32
        and the numbers are bytes, booleans, or have bounds that are not negative; four, if they are at most 16 of
        those of three.
        """
        layout = layout_of(self.shape) if self.type == "Box" else None
        if layout is None:
            return None
        pixels = self.dtype in ("uint8", "bool")
        sizes = dict(zip(layout, self.shape, strict=True))
        large = min(sizes["H"], sizes["W"]) >= _SIDE
        if layout == "HW":
            bounded = bool(np.all(np.asarray(self.low) >= 0) and np.all(np.isfinite(self.high)))
            return layout if large and (pixels or bounded) else None
        if sizes.get("K", 1) > _CHANNELS or not (pixels or (large and sizes["C"] <= _CHANNELS)):
            return None
        return layout

    @property
    def is_bounded(self) -> bool:
        return self.type == "Box" and bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def empty(self, *leading: int, device: torch.device | str = "cpu") -> Any:
        """Uninitialised memory for elements, [*leading, *shape]; a dict of tensors for a Dict."""
        if self.type == "Dict":
            return {key: part.empty(*leading, device=device) for key, part in self.spaces.items()}
        return torch.empty((*leading, *self.shape), dtype=self.torch_dtype, device=device)


def layout_of(shape: tuple[int, ...]) -> str | None:
    """The dimensions of an image of that shape: HW, CHW or HWC (channels are the smaller end), KCHW or KHWC; or None.

    K are the frames of a stack, H and W the sides, C the channels; in CHW, C may as well be frames.
    """
    if len(shape) == 4:
        return f"K{layout_of(shape[1:])}"
    return {2: "HW", 3: "HWC" if shape[-1] < shape[0] else "CHW"}.get(len(shape)) if shape else None


_MOST = 1_000_000  # choices, each of which is a number in networks' inputs or outputs


def read_space(space: SpaceLike) -> SpaceSpec:
    """Read a space from any of the forms in which it arrives.

    Args:
        space: A gymnasium.Space, a SpaceSpec, or the config form of one. The minimal config forms are
            {"shape": (4,)} for an observation (three dimensions without a dtype are uint8 pixels),
            {"shape": (n,), "type": "Discrete", "range": [0, n - 1]} and
            {"shape": (k,), "type": "Box", "range": [low, high]}.

    Raises:
        ValueError: If the space is of a kind that hsw does not support, or the config form is incomplete.
    """
    if isinstance(space, SpaceSpec):
        return space
    if isinstance(space, gym.Space):
        return _read_gym(space)
    if isinstance(space, DictConfig):
        space = OmegaConf.to_container(space, resolve=True)
    if isinstance(space, Mapping):
        try:
            return _read_mapping(space)
        except (TypeError, IndexError, KeyError, OverflowError) as error:
            raise ValueError(f"no space can be read from {shortened(space)}: {error}") from error
    raise ValueError(f"a space must be a gymnasium.Space or a config with a shape, not {space!r}")


def policy_space(space: SpaceSpec) -> SpaceSpec:
    """The space of a policy's actions, where an environment's is this one: numbers are float32 there, whatever they are
    in the environment."""
    return replace(space, dtype="float32") if space.type == "Box" else space


def space_config(space: SpaceLike) -> dict[str, Any]:
    """The config form of a space: plain Python scalars and lists only, uniform bounds as one number."""
    spec = read_space(space)
    if spec.type == "Dict":
        parts = {key: space_config(part) for key, part in spec.spaces.items()}
        return {"type": "Dict", "spaces": parts, **({"masked": True} if spec.masked else {})}
    if spec.type == "Discrete":
        return {"shape": list(spec.nvec), "type": "Discrete", "range": [0, spec.nvec[0] - 1]}
    if spec.type == "MultiDiscrete":
        top = max(spec.nvec) - 1
        return {"shape": list(spec.shape), "type": "MultiDiscrete", "range": [0, top], "nvec": list(spec.nvec)}
    if spec.type == "MultiBinary":
        return {"shape": list(spec.shape), "type": "MultiBinary", "range": [0, 1]}
    low, high = (np.asarray(bound).tolist() for bound in (spec.low, spec.high))
    config = {"shape": list(spec.shape), "type": "Box", "dtype": spec.dtype, "low": low, "high": high}
    first = [float(np.ravel(bound)[0]) if np.size(bound) else 0.0 for bound in (spec.low, spec.high)]
    return {**config, "range": first}


def _unsupported(name: str) -> ValueError:
    return ValueError(f"{name} spaces are not supported; supported are {', '.join(SUPPORTED)}")


def _read_gym(space: gym.Space[Any]) -> SpaceSpec:
    if isinstance(space, gym.spaces.Box):
        low, high = _bound(space.low), _bound(space.high)
        return SpaceSpec("Box", tuple(map(int, space.shape)), space.dtype.name, low, high)
    if isinstance(space, gym.spaces.Discrete):
        return _categorical("Discrete", (int(space.n),))
    if isinstance(space, gym.spaces.MultiDiscrete):
        if space.nvec.ndim != 1:
            raise ValueError(f"a MultiDiscrete space must have one dimension, not shape {space.shape}")
        return _categorical("MultiDiscrete", tuple(map(int, space.nvec)))
    if isinstance(space, gym.spaces.MultiBinary):
        return SpaceSpec("MultiBinary", tuple(map(int, space.shape)), "int8", 0, 1)
    if isinstance(space, gym.spaces.Dict):
        _refuse_parts(space)
        return SpaceSpec("Dict", spaces={key: read_space(space[key]) for key in sorted(space.spaces)})
    raise _unsupported(type(space).__name__)


def _refuse_parts(space: gym.spaces.Dict) -> None:
    """Name the parts that no network takes, and what leaves them out; and the names that no module can have."""
    if not space.spaces:
        raise ValueError("a Dict space must have parts, and this one is empty")
    for key in space.spaces:
        if not isinstance(key, str) or not key or "." in key or hasattr(torch.nn.ModuleDict, key):
            raise ValueError(f"the part {key!r} of a Dict space must have another name: a word without a dot")
    kinds = tuple(getattr(gym.spaces, name) for name in SUPPORTED)
    parts = {key: part for key, part in space.spaces.items() if not isinstance(part, kinds)}
    if parts:
        named = ", ".join(f"{key!r} ({type(part).__name__})" for key, part in parts.items())
        kept = ", ".join(str(key) for key in sorted(space.spaces) if key not in parts)
        raise ValueError(
            f"no network takes the observation's part {named}; leave it out with env.wrappers="
            f"[{{_target_: gymnasium.wrappers.FilterObservation, filter_keys: [{kept}]}}]"
        )


def _categorical(kind: str, nvec: tuple[int, ...]) -> SpaceSpec:
    if not nvec or min(nvec) < 1 or sum(nvec) > _MOST:
        raise ValueError(f"a {kind} space must have from 1 to {_MOST:,} choices, not {', '.join(map(str, nvec[:3]))}")
    return SpaceSpec(kind, () if kind == "Discrete" else (len(nvec),), "int64", 0, max(nvec) - 1, nvec)


def _read_mapping(config: Mapping[str, Any]) -> SpaceSpec:
    if "spaces" in config:
        parts = config["spaces"]
        spec = SpaceSpec("Dict", spaces={str(key): read_space(parts[key]) for key in sorted(parts)})
        return replace(spec, masked=bool(config.get("masked")) and MASK in spec.spaces)
    if config.get("shape") is None:
        raise ValueError(f"a space config needs a shape, got the keys {sorted(config)}")
    shape = tuple(int(size) for size in config["shape"])
    if min(shape, default=0) < 0:
        raise ValueError(f"the shape of a space has no negative sizes, got {list(shape)}")
    kind = config.get("type", "Box")
    if kind == "Discrete":
        return _categorical(kind, shape)
    if kind == "MultiDiscrete":
        nvec = config.get("nvec") or [int(config["range"][1]) + 1] * shape[0]
        return _categorical(kind, tuple(int(n) for n in nvec))
    if kind == "MultiBinary":
        return SpaceSpec(kind, shape, "int8", 0, 1)
    if kind != "Box":
        raise _unsupported(str(kind))
    dtype = np.dtype(config.get("dtype") or ("uint8" if len(shape) == 3 else "float32")).name
    pixels = (0, 255) if dtype == "uint8" else (-math.inf, math.inf)
    low, high = config.get("range") or pixels
    bounds = (_number_bound(name, config.get(name, other), shape) for name, other in (("low", low), ("high", high)))
    return SpaceSpec("Box", shape, dtype, *bounds)


def _number_bound(name: str, bound: Any, shape: tuple[int, ...]) -> Any:
    """A bound as it stands in a config: one number, or as many as the space has."""
    values = np.asarray(bound)
    if values.dtype.kind not in "biuf" or np.isnan(values).any():
        raise ValueError(f"the bound {name} of a space must be numbers, got {shortened(bound)}")
    if values.shape not in ((), shape):
        raise ValueError(f"the bound {name} of a space must have its shape {list(shape)}, got {list(values.shape)}")
    return _bound(bound)


def _bound(bound: Any) -> Any:
    """One number where a bound is uniform, else nested tuples."""
    values = np.asarray(bound)
    if values.size and (values == values.flat[0]).all():
        return values.flat[0].item()
    nested = values.tolist()
    return _tuples(nested)


def _tuples(nested: Any) -> Any:
    return tuple(_tuples(item) for item in nested) if isinstance(nested, list) else nested


def mask_space(rest: SpaceSpec, num_actions: int) -> SpaceSpec:
    """The space of observations that come with a mask of actions."""
    parts = rest.spaces if rest.type == "Dict" else {REST: rest}
    mask = SpaceSpec("MultiBinary", (num_actions,), "int8", 0, 1)
    return SpaceSpec("Dict", spaces=dict(sorted({**parts, MASK: mask}.items())), masked=True)


def without_mask(space: SpaceSpec) -> SpaceSpec:
    """What networks see of such a space: the part `observation` itself where that is all."""
    rest = {key: part for key, part in space.spaces.items() if key != MASK}
    return rest[REST] if set(rest) == {REST} else SpaceSpec("Dict", spaces=rest)


def split_mask(obs: dict[str, Any]) -> tuple[Any, Any]:
    """Observations of such a space as networks see them, and the mask."""
    rest = {key: part for key, part in obs.items() if key != MASK}
    return (rest[REST] if set(rest) == {REST} else rest), obs[MASK]


def join_mask(rest: Any, mask: Any) -> dict[str, Any]:
    """The opposite of split_mask."""
    return {**(rest if isinstance(rest, dict) else {REST: rest}), MASK: mask}


def tree_map(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Apply a function to an observation or a tensor, or to every part of a dict of them."""
    if isinstance(value, dict):
        return {key: tree_map(function, part, *(other[key] for other in others)) for key, part in value.items()}
    return function(value, *others)


def leaves(value: Any) -> Iterator[Any]:
    """An observation or a tensor, or every part of a dict of them, in the order of the keys."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from leaves(value[key])
    else:
        yield value
