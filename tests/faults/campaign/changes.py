"""Changes of a saved state: each says whether what it makes must be refused."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from hsw.run.checkpoint import signed

STRANGE: dict[str, Any] = {
    "null": None,
    "text": "../../x\x1b[2J",
    "number in words": "1",
    "list": [1, [2]],
    "mapping": {"_target_": "os.system", "$tensor": "/nowhere"},
    "empty mapping": {},
    "tensor": {"$tensor": "/policy"},
    "rows": {"$rows": "/nowhere", "begin": [0], "end": [2**40]},
    "items": {"$items": [[1, 2]]},
    "true": True,
}
NUMBERS: tuple[float, ...] = (-1, 0, 1, 3, 2**31, 2**62, 2**63, 2**64, 2**70, -(2**63), 0.5, -0.0, 1e-300, 1e300)
NONFINITE = (math.nan, math.inf, -math.inf)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of a nested value: its path, what holds it, and its key there."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, dict | list) and value and "$tensor" not in value:
                yield from leaves(value, f"{path}/{key}")
            else:
                yield f"{path}/{key}", node, key


def change_leaf(rng: random.Random, parent: Any, key: Any) -> tuple[str, bool]:
    """Change what is at a key. Returns what was done, and whether the form is wrong now."""
    value = parent[key]
    if isinstance(value, dict) and "$tensor" in value:
        kinds: tuple[str, ...] = ("missing", "strange")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        kinds = ("missing", "strange", "twice")
    else:
        kinds = ("missing", "strange", "other number", "other number", "nonfinite", "digit")
    kind = rng.choice(kinds)
    if kind == "missing":
        del parent[key]
        return kind, isinstance(parent, dict)  # a list may be shorter: "other values"
    if kind == "twice":
        if isinstance(parent, list):
            parent.insert(key, value)
            return kind, False
        parent[f"{key}2"] = value
        return "another key", True
    if kind == "strange":
        name = rng.choice(sorted(STRANGE))
        parent[key] = copy.deepcopy(STRANGE[name])
        return name, _other_kind(value, parent[key])
    if kind == "nonfinite":
        parent[key] = rng.choice(NONFINITE)
        return str(parent[key]), True
    parent[key] = rng.choice(NUMBERS) if kind == "other number" else _digit(rng, value)
    return str(parent[key]), isinstance(value, int) and isinstance(parent[key], float) and parent[key] % 1 != 0


def _other_kind(old: Any, new: Any) -> bool:
    """Whether a value is of a kind that cannot be meant where another was; null may stand for "none yet"."""
    if old is None or new is None or isinstance(old, str):
        return False
    if isinstance(old, dict | list) and not old:
        return False
    if isinstance(old, dict) and isinstance(new, dict):
        return False  # "$tensor" and its like name something else
    return type(old) is not type(new)


def _digit(rng: random.Random, value: Any) -> Any:
    """A number of which one digit is another."""
    if not math.isfinite(value):
        return value
    digits = list(str(value))
    places = [index for index, digit in enumerate(digits) if digit.isdigit()]
    digits[rng.choice(places)] = rng.choice("123456789")
    try:
        return type(value)("".join(digits))
    except ValueError:
        return value


def change_tensor(rng: random.Random, tensors: dict[str, torch.Tensor]) -> tuple[str, bool, str]:
    """Change one tensor. Returns what was done, whether its form or its numbers are wrong now, and which it was."""
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    floating = tensor.is_floating_point()
    dtypes = [kind for kind in (torch.float16, torch.float64, torch.int16, torch.uint8) if kind != tensor.dtype]
    random_bits = torch.frombuffer(bytearray(rng.randbytes(max(1, tensor.nbytes))), dtype=torch.uint8)[: tensor.nbytes]
    kinds: dict[str, tuple[Callable[[], Any], bool]] = {
        "missing": (lambda: None, True),
        "called another": (lambda: tensor, True),
        "no axis": (lambda: torch.zeros((3,) if not tensor.dim() else (), dtype=tensor.dtype), True),
        "one more axis": (lambda: tensor[None], True),
        "longer": (lambda: torch.zeros([size + 1 for size in tensor.shape] or [2], dtype=tensor.dtype), True),
        "other order": (lambda: tensor.flatten() if tensor.dim() > 1 else tensor[None], True),
        "none": (lambda: tensor.new_zeros((0, *tensor.shape[1:])), False),  # what grows may be empty
        "dtype": (lambda: tensor.to(rng.choice(dtypes)), True),
        "nonfinite": (lambda: _one(rng, tensor, rng.choice(NONFINITE)), floating and tensor.numel() > 0),
        "one": (lambda: _one(rng, tensor, rng.choice(NUMBERS)), False),
        "huge": (lambda: torch.full_like(tensor, 1e30 if floating else 100), False),
        "zero": (lambda: torch.zeros_like(tensor), False),
        "noise": (lambda: random_bits.view(tensor.dtype).reshape(tensor.shape), False),
    }
    unfit = {"noise"} if tensor.dtype == torch.bool or not tensor.numel() else set()
    kind = rng.choice(sorted(set(kinds) - unfit))
    make, wrong = kinds[kind]
    made = make()
    if kind in ("missing", "called another"):
        del tensors[name]
        if kind == "called another":
            tensors[f"{name}2"] = made
    else:
        wrong = wrong or (made.is_floating_point() and not bool(torch.isfinite(made).all()))
        tensors[name] = made.contiguous().clone()
    return kind, wrong, name


def _one(rng: random.Random, tensor: torch.Tensor, value: float) -> torch.Tensor:
    """The tensor with one number that is another."""
    changed = tensor.clone().flatten()
    if len(changed):
        whole = int(value) % 100 if math.isfinite(value) else 7
        changed[rng.randrange(len(changed))] = _fitting(value, tensor.dtype) if tensor.is_floating_point() else whole
    return changed.reshape(tensor.shape)


def _fitting(value: float, dtype: torch.dtype) -> float:
    """A number, the largest of its dtype where it is larger."""
    return float(value) if not math.isfinite(value) else max(min(value, torch.finfo(dtype).max), torch.finfo(dtype).min)


def sign(checkpoint: Path, manifest: dict[str, Any], files: bool = True) -> None:
    """Write a manifest whose own checksum fits, and with `files` those of the files too."""
    for name in manifest["sha256"] if files else ():
        manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(signed(manifest)))


def read_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load((checkpoint / "tensors.safetensors").read_bytes())


def write_tensors(checkpoint: Path, tensors: dict[str, torch.Tensor]) -> None:
    (checkpoint / "tensors.safetensors").write_bytes(save(tensors))


def damage(rng: random.Random, path: Path) -> str:
    """Flip bits of a file, cut it, or let it grow. Returns what was done."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "flips", "cut", "empty", "longer", "zeros"))
    if kind in ("flip", "flips") and content:
        for _ in range(1 if kind == "flip" else 20):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[rng.randrange(len(content) + 1) :]
    elif kind == "zeros":
        begin = rng.randrange(len(content) + 1)
        content[begin:] = bytes(len(content) - begin)
    else:
        content = bytearray() if kind == "empty" else content + rng.randbytes(rng.choice((1, 1000)))
    path.write_bytes(content)
    return kind
