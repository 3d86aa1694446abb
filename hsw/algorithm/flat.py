"""Many parameters as one: zeroing, clipping and a step are an operation each, where a small network would spend as much
on one per layer as on its gradient."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim import optimizer as hooks

from hsw.template import template_of


def flattened(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One parameter with the values of many, which become views of it, and their gradients of its gradient."""
    parameters = list(dict.fromkeys(parameters))  # one that comes twice has one place
    whole = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
    flat = nn.Parameter(whole)
    flat.grad = torch.zeros_like(whole)
    offset = 0
    for parameter in parameters:
        shape, stride = parameter.shape, parameter.stride()  # dense in any order: convolutions are channels_last
        whole.as_strided(shape, stride, offset).copy_(parameter.data)
        parameter.data = flat.data.as_strided(shape, stride, offset)
        parameter.grad = flat.grad.as_strided(shape, stride, offset)
        offset += parameter.numel()
    return flat


def is_view(first: nn.Parameter, flat: nn.Parameter) -> bool:
    """Whether the first of the parameters that were flattened still is a view of the whole."""
    return first.data_ptr() == flat.data_ptr()


def adam(parameter: nn.Parameter, lr: float, eps: float) -> Optimizer:
    """torch.optim.Adam([parameter], lr=lr, eps=eps, fused=True), made as a copy of it is: without its constructor.

    The constructor, step, state_dict and load_state_dict import torch's compiler, which takes a second that most runs
    need not spend: see take_step, state_of and restore_state.
    """
    options = inspect.signature(torch.optim.Adam).parameters.items()
    defaults = {name: option.default for name, option in options if name != "params"}
    defaults |= {"lr": lr, "eps": eps, "fused": True}
    made: Any = torch.optim.Adam.__new__(torch.optim.Adam)
    groups = [{"params": [parameter], **defaults}]
    made.__setstate__({"defaults": defaults, "state": defaultdict(dict), "param_groups": groups})
    made._step_supports_amp_scaling = True
    optimizer: Optimizer = made
    return optimizer


def take_step(optimizer: Optimizer) -> None:
    """optimizer.step(), to the bit; of a plain Adam on the CPU without the shell around its kernel.

    The shell takes five times as long as the kernel on a small network. Whatever else was asked of the optimiser
    (another kind, hooks, a wrapper of step) remains its own business.
    """
    if not _is_plain_adam(optimizer):
        optimizer.step()
        return
    group = optimizer.param_groups[0]
    parameter = group["params"][0]
    state = optimizer.state[parameter]
    if not state:
        moments = {name: torch.zeros_like(parameter.detach()) for name in ("exp_avg", "exp_avg_sq")}
        state.update(step=torch.zeros((), dtype=torch.float32), **moments)
    beta1, beta2 = group["betas"]
    options = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
    tensors: list[Any] = [parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
    kernel: Any = torch._fused_adam_
    with torch.no_grad():
        state["step"].add_(1)
        kernel(*([part] for part in tensors), [], [state["step"]], beta1=beta1, beta2=beta2, **options)


def state_of(optimizer: Optimizer) -> dict[int, Any]:
    """optimizer.state_dict()["state"]."""
    if not _is_plain_adam(optimizer):
        state: dict[int, Any] = optimizer.state_dict()["state"]
        return state
    own = optimizer.state.get(optimizer.param_groups[0]["params"][0])
    return {0: own} if own else {}


def restore_state(optimizer: Optimizer, saved: dict[int, Any]) -> None:
    """optimizer.load_state_dict with this state and its own groups.

    Args:
        optimizer: Of one parameter.
        saved: What state_of returned.
    """
    own_loading = optimizer._optimizer_load_state_dict_pre_hooks or optimizer._optimizer_load_state_dict_post_hooks
    if own_loading or "load_state_dict" in vars(optimizer) or not _is_plain_adam(optimizer):
        optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
        return
    parameter = optimizer.param_groups[0]["params"][0]
    optimizer.state.clear()
    for values in saved.values():
        optimizer.state[parameter] = {
            name: value.to(parameter.device, torch.float32 if name == "step" else parameter.dtype)
            for name, value in values.items()
        }


def optimizer_template(optimizer: Optimizer) -> Any:
    """The template of an optimiser's state, from a copy of it that makes one step."""
    twin = copy.deepcopy(optimizer)
    twin.state.clear()
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    take_step(twin)
    return template_of(state_of(twin))


_PLAIN = {"fused": True, "amsgrad": False, "capturable": False, "differentiable": False}
_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


def _is_plain_adam(optimizer: Optimizer) -> bool:
    """Whether step() is Adam's kernel on one parameter and nothing else."""
    group = optimizer.param_groups[0]
    return (
        type(optimizer) is torch.optim.Adam
        and len(optimizer.param_groups) == len(group["params"]) == 1
        and group["params"][0].is_cpu
        and all(group.get(name) is value for name, value in _PLAIN.items())
        and not group.get("decoupled_weight_decay")
        and "step" not in vars(optimizer)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and not any(getattr(hooks, name) for name in _HOOKS)
    )
