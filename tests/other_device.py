"""A device that is not there: arithmetic on the CPU, and labels that say where each tensor would be.

Whatever the label's device would refuse is refused: operands in two places, NumPy's view of a tensor that is not the
host's, pickling one. Labels belong to memory, so views have their base's. Autograd, indices, `.item()` and masks work,
which they do not with meta tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
OTHER = torch.device("xpu:0")  # a name that torch knows and no test machine has
CROSSING = {"aten::copy_", "aten::_to_copy", "aten::_local_scalar_dense", "aten::set_"}


class WrongDevice(AssertionError):
    """What would be a RuntimeError or a TypeError on the device."""


class Labels:
    """Which memory would be elsewhere. A weak reference keeps its address from being used again."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[StorageWeakRef, torch.device]] = {}
        self.of_call = CPU  # of a function that makes tensors as its operands are, deep inside

    def __getitem__(self, tensor: Tensor) -> torch.device:
        found = self._places.get(tensor.untyped_storage()._cdata)
        return found[1] if found else CPU

    def __setitem__(self, tensor: Tensor, device: torch.device) -> None:
        storage = tensor.untyped_storage()
        self._places.pop(storage._cdata, None)
        if device != CPU:
            self._places[storage._cdata] = StorageWeakRef(storage), device


class _Arithmetic(TorchDispatchMode):
    """Operands in one place, and results where they are."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        place = self._place(func, args, operands)
        out = func(*args, **kwargs)
        for result in tree_leaves(out):
            if isinstance(result, Tensor) and not any(result is operand for operand in operands):
                self.labels[result] = place
        return out

    def _place(self, func: Any, args: Any, operands: list[Tensor]) -> torch.device:
        name = func._schema.name
        if not operands:
            return self.labels.of_call  # a factory; those that name a device are labelled by _Calls
        if name in CROSSING:
            return self.labels[operands[0]]
        if name in ("aten::index", "aten::index_put_", "aten::_index_put_impl_"):  # indices may come from the host
            own = self.labels[args[0]]
            if own != CPU:
                operands = [args[0], *(value for value in args[2:] if isinstance(value, Tensor) and value.dim())]
        elif torch.Tag.pointwise in func.tags:  # a number of the host's is as good as a plain one, but as a result
            written = [arg for arg, spec in zip(args, func._schema.arguments, strict=False) if _writes(spec)]
            operands = [o for o in operands if o.dim() or self.labels[o] != CPU or any(o is w for w in written)]
        places = {self.labels[operand] for operand in operands}
        if len(places) > 1:
            raise WrongDevice(f"{func} of tensors on {sorted(map(str, places))}")
        return places.pop() if places else CPU


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


class _Calls(TorchFunctionMode):
    """Everything that names a device or asks for one."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return self.labels[args[0]]
        if func == Tensor.is_cpu.__get__:
            return self.labels[args[0]] == CPU
        if func in (Tensor.numpy, Tensor.__array__, Tensor.share_memory_):
            if self.labels[args[0]] != CPU:
                raise WrongDevice(f"{func.__name__} of a tensor on {self.labels[args[0]]}")
            return func(*args, **kwargs)
        if func in (Tensor.to, Tensor.cpu, torch.as_tensor, torch.asarray):
            return self._moved(func, args, kwargs)
        device = kwargs.get("device")
        if device is None:
            self.labels.of_call = OTHER if any(self._elsewhere(leaf) for leaf in tree_leaves((args, kwargs))) else CPU
            try:
                return func(*args, **kwargs)
            finally:
                self.labels.of_call = CPU
        made = func(*args, **{**kwargs, "device": CPU if torch.device(device) == OTHER else device})
        self.labels[made] = torch.device(device)
        return made

    def _elsewhere(self, value: Any) -> bool:
        return isinstance(value, Tensor) and self.labels[value] == OTHER

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        named = kwargs.pop("device", None)
        named = next((arg for arg in args[1:] if isinstance(arg, str | torch.device)), named)
        target = CPU if func is Tensor.cpu else None if named is None else torch.device(named)
        source = self.labels[args[0]] if isinstance(args[0], Tensor) else CPU
        made = func(*(CPU if isinstance(arg, str | torch.device) else arg for arg in args), **kwargs)
        if target is None or target == source:
            return made
        if isinstance(args[0], Tensor) or target != CPU:
            made = made.clone()  # memory of its own
            self.labels[made] = target
        return made


@contextlib.contextmanager
def other_device() -> Iterator[Labels]:
    """Within this context OTHER is a device like any."""
    labels, pickled = Labels(), Tensor.__reduce_ex__

    def pickle(tensor: Tensor, protocol: Any) -> Any:
        if labels[tensor] != CPU:
            raise WrongDevice(f"pickling a tensor on {labels[tensor]}")
        return pickled(tensor, protocol)

    with mock.patch.object(Tensor, "__reduce_ex__", pickle), _Calls(labels), _Arithmetic(labels):
        yield labels
