"""MLPs with a head each, forward and backward by hand: torch's sums, with less overhead around them.

torch spends six times as long as NumPy on a tanh, and on calling a small operation as long as on its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hsw.network.encoder import MLP


class Activation(NamedTuple):
    """A function of each number that NumPy knows.

    Attributes:
        apply: Writes its values over its arguments.
        slope: Its derivative, as a function of its value.
        plain: Itself, in torch.
    """

    apply: Callable[[np.ndarray], object]
    slope: Callable[[np.ndarray], np.ndarray]
    plain: Callable[[Tensor], Tensor]


ACTIVATIONS: dict[type, Activation] = {
    nn.Tanh: Activation(lambda x: np.tanh(x, out=x), lambda y: 1 - y * y, torch.tanh),
    nn.ReLU: Activation(lambda x: np.maximum(x, 0, out=x), lambda y: y > 0, torch.relu),
}
_quiet = np.errstate(over="ignore", invalid="ignore")  # of a loss that is not finite descend tells
_SMALL = 2**18  # multiplications of a product, which NumPy makes in one thread


def through(obs: Any, *towers: tuple[Any, nn.Linear]) -> list[tuple[Tensor, Tensor]]:
    """Observations through encoders with a head each: features, [B, out_dim], and the head's output, [B, K], of each.

    Plain MLPs on the CPU are computed by hand where a gradient may be asked for; that differs from torch's values and
    gradients in the last bits. All other modules are called as they are.

    Args:
        obs: [B, *shape], or a dict of them.
        towers: An encoder and its head each.
    """
    layers = [plain_layers(*tower) for tower in towers] if _by_hand() else []
    if layers and all(layers):
        inputs = [_inputs(encoder.flatten(obs), own) for (encoder, _), own in zip(towers, layers, strict=True)]
        if all(x.is_cpu and x.ndim == 2 and x.dtype == weight.dtype for x, weight, *_ in inputs):
            kinds = [(type(own[1]), len(parts)) for own, parts in zip(layers, inputs, strict=True)]
            outputs = _Towers.apply(kinds, *chain(*inputs))  # type: ignore[no-untyped-call]
            return list(zip(outputs[::2], outputs[1::2], strict=True))
    return [_called(obs, *tower) for tower in towers]


def plain_layers(encoder: Any, head: Any) -> list[nn.Module]:
    """An MLP's layers and its head, if they are as hsw makes them, with an activation that NumPy knows; else none.

    A user may have replaced a layer, or hooked one.
    """
    if type(encoder) is not MLP or _hooked(encoder) or _hooked(encoder.layers) or _hooked(encoder.flatten):
        return []
    layers = [*encoder.layers, head]
    kind = type(layers[1]) if len(layers) > 2 else None
    if kind not in ACTIVATIONS or any(map(_hooked, layers)):
        return []
    fits = all(type(layer) is kind for layer in layers[1:-1:2])
    return layers if fits and all(type(layer) is nn.Linear and layer.bias is not None for layer in layers[::2]) else []


def _hooked(module: nn.Module) -> bool:
    own = vars(module)
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def _by_hand() -> bool:
    """Whether a gradient may be asked for, of plain numbers: no dtype is chosen, nothing is traced or transformed."""
    return (
        torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def _called(obs: Any, encoder: Any, head: nn.Linear) -> tuple[Tensor, Tensor]:
    features = encoder(obs)
    return features, head(features)


def _inputs(x: Tensor, layers: list[Any]) -> list[Tensor]:
    """What goes into a tower: vectors, [B, D], and the weight and the bias of each linear layer."""
    return [x, *(part for layer in layers[::2] for part in (layer.weight, layer.bias))]


class _Towers(torch.autograd.Function):
    """Features and outputs of towers whose kind (activation, number of inputs) and inputs are given."""

    @staticmethod
    @_quiet
    def forward(ctx: Any, kinds: list[tuple[type, int]], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.kinds, ctx.hidden, outputs = kinds, [], []
        for (kind, _), own in _split(kinds, inputs):
            x, *layers = (part.detach().numpy() for part in own)
            *hidden, out = _values(ACTIVATIONS[kind], x, layers)
            ctx.hidden.append(hidden)
            outputs += [torch.from_numpy(hidden[-1]), torch.from_numpy(out)]
        ctx.save_for_backward(*inputs, *outputs[::2])  # which torch guards against being written to
        return tuple(outputs)

    @staticmethod
    @_quiet
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors[: len(ctx.saved_tensors) - len(ctx.kinds)]
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # of this gradient one is wanted, too
            return None, *_plain_gradients(ctx.kinds, inputs, wanted, grads)
        told: list[Tensor | None] = []
        parts = zip(_split(ctx.kinds, inputs), ctx.hidden, grads[::2], grads[1::2], strict=True)
        for ((kind, _), own), hidden, features, out in parts:
            if features is None and out is None:
                told += [None] * len(own)
                continue
            x, *layers = (part.detach().numpy() for part in own)
            first, last = (None if grad is None else grad.numpy() for grad in (features, out))
            made = _gradients(ACTIVATIONS[kind], [x, *hidden], layers[::2], first, last, wanted[len(told)])
            told += [None if grad is None else torch.from_numpy(grad) for grad in made]
        return None, *told


def _split(kinds: Sequence[tuple[type, int]], inputs: Sequence[Any]) -> Iterator[tuple[tuple[type, int], Any]]:
    begin = 0
    for kind in kinds:
        yield kind, inputs[begin : begin + kind[1]]
        begin += kind[1]


def _values(activation: Activation, x: np.ndarray, layers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What each layer gives, the last one without an activation."""
    values: list[np.ndarray] = []
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        if values:
            activation.apply(x)
        x = _product(x, weight.T)
        x += bias
        values.append(x)
    return values


def _gradients(
    activation: Activation,
    values: list[np.ndarray],
    weights: Sequence[np.ndarray],
    features: np.ndarray | None,
    out: np.ndarray | None,
    down: bool,
) -> list[np.ndarray | None]:
    """The loss's gradients by a tower's inputs, in their order.

    Args:
        activation: After each layer but the head.
        values: What each layer read, [B, D]; the last are the features.
        weights: Of each layer, [out, in].
        features, out: The loss's gradients by the features and by the head's output; not both are None.
        down: Whether the gradient by the first values is wanted.
    """
    rows = np.ones(len(values[0]), values[0].dtype)
    gradients: list[np.ndarray | None] = []
    delta = out
    for number in reversed(range(len(weights))):
        x, is_first, is_head = values[number], number == 0, number == len(weights) - 1
        gradients += [None, None] if delta is None else [rows @ delta, _product(delta.T, x)]
        below = None if delta is None or (is_first and not down) else _product(delta, weights[number])
        if is_head and features is not None:
            below = features.copy() if below is None else below + features
        if below is not None and not is_first:
            below *= activation.slope(x)
        delta = below
    return [delta, *reversed(gradients)]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b; a large one by torch, which keeps to the number of threads that it was given."""
    if a.shape[0] * a.shape[1] * b.shape[1] <= _SMALL:
        small: np.ndarray = a @ b
        return small
    return torch.mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def _plain_gradients(
    kinds: Sequence[tuple[type, int]], inputs: Sequence[Tensor], wanted: Sequence[bool], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The same gradients by torch, which knows theirs."""
    outputs: list[Tensor] = []
    for (kind, _), (x, *layers) in _split(kinds, inputs):
        for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
            x = ACTIVATIONS[kind].plain(nn.functional.linear(x, weight, bias))
        outputs += [x, nn.functional.linear(x, *layers[-2:])]
    given = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if grad is not None]
    ends, told = zip(*given, strict=True)
    sources = [own for own, is_wanted in zip(inputs, wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(ends, sources, told, create_graph=True, allow_unused=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]
