"""Which targets a config may name. A run folder is data: nothing in it may execute.

A target is one of a list: what conf/ names, what hsw's rooms export, classes of torch and Gymnasium that are named
below, and whatever public of a package that the command line trusts. Nothing is a target for how its name begins.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from hsw.config.place import conf_folder
from hsw.config.plugins import trusted_packages
from hsw.errors import ConfigError
from hsw.run.paste import is_package

# Rooms of hsw whose exports may be named, by where they are exported and by where they are defined.
_ROOMS = (
    "hsw.env",
    "hsw.network",
    "hsw.storage",
    "hsw.algorithm",
    "hsw.agent",
    "hsw.agent.callbacks",
    "hsw.schedule",
    "hsw.run.logger",
)
_LISTED = {
    # Layers and losses; nothing that loads or runs code.
    "torch.nn": """
        AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool1d AdaptiveMaxPool2d AlphaDropout AvgPool1d AvgPool2d
        BatchNorm1d BatchNorm2d BatchNorm3d Bilinear CELU Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d
        CosineSimilarity CrossEntropyLoss Dropout Dropout1d Dropout2d ELU Embedding Flatten GELU GLU GRU GRUCell
        GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh HuberLoss Identity InstanceNorm1d InstanceNorm2d L1Loss
        LSTM LSTMCell LayerNorm LazyBatchNorm1d LazyConv2d LazyLinear LeakyReLU Linear LocalResponseNorm LogSigmoid
        LogSoftmax MSELoss MaxPool1d MaxPool2d Mish ModuleDict ModuleList MultiheadAttention PReLU PixelShuffle RMSNorm
        RNN RNNCell RReLU ReLU ReLU6 ReflectionPad2d ReplicationPad2d SELU Sequential SiLU Sigmoid SmoothL1Loss Softmax
        Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold TransformerEncoder TransformerEncoderLayer
        Unflatten Upsample ZeroPad2d
    """,
    "torch.optim": """
        ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax NAdam RAdam RMSprop Rprop SGD SparseAdam
    """,
    "gymnasium.spaces": "Box Dict Discrete MultiBinary MultiDiscrete",
    # Not RecordVideo and its like, which write where they are told.
    "gymnasium.wrappers": """
        AddRenderObservation AddWhiteNoise AtariPreprocessing Autoreset ClipAction ClipReward DelayObservation
        DiscretizeAction DiscretizeObservation DtypeObservation FilterObservation FlattenObservation
        FrameStackObservation GrayscaleObservation MaxAndSkipObservation NormalizeObservation NormalizeReward
        ObstructView OrderEnforcing PassiveEnvChecker RecordEpisodeStatistics RepeatAction RescaleAction
        RescaleObservation ReshapeObservation ResizeObservation StickyAction TimeAwareObservation TimeLimit
        TransformAction TransformObservation TransformReward
    """,
}


def resolve_target(name: str, allowed: Iterable[str] = ()) -> Any:
    """The class, function or factory that a _target_ names, if it is one that may run.

    Nothing is imported but hsw, torch, Gymnasium and the packages that are trusted.

    Args:
        name: Dotted.
        allowed: Further packages that the command line trusts.

    Raises:
        ConfigError: If there is no such target, or it is not to be trusted.
    """
    trusted = (*allowed, *trusted_packages())
    more = "".join(f", or anything public in {package}" for package in trusted if is_package(package))
    refusal = ConfigError(
        f"_target_={name} is not allowed: a target is a public class or function of hsw, a layer or optimiser of torch "
        f"or a wrapper of gymnasium{more}; "
        "--allow my_package on the command line trusts another package (from Python allow=['my_package'])"
    )
    if not isinstance(name, str) or not all(part.isidentifier() and part[0] != "_" for part in name.split(".")):
        raise refusal
    if inside(name, trusted):
        found = _locate(name)
        owner = found.__self__ if inspect.ismethod(found) else found  # a factory classmethod belongs to its class
        module = getattr(owner, "__module__", None) or ""
        if (inspect.isroutine(found) or inspect.isclass(found)) and inside(module, trusted):
            return found
        if not inside(name, ("hsw",)):
            raise refusal
    target = _registered(name)
    if target is not None:
        return target
    for package in ("hsw", *_LISTED):
        if inside(name, (package,)) and name != package:
            _locate(name)  # tells a name that is misspelt
    raise refusal


def walk_targets(config: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a plain config that has a _target_, with its path."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield path, config
        for key, value in config.items():
            yield from walk_targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from walk_targets(value, f"{path}.{index}")


def check_env_modules(config: dict[str, Any], allowed: Iterable[str]) -> None:
    """Refuse at once an env id that imports a module ("my_pkg.module:MyEnv-v0") which the command line does not trust.

    Whatever way an id takes, make_env itself refuses it where it would import (hsw.env.trust).

    Raises:
        ConfigError: If a run folder's config names such a module.
    """
    for path, node, module in _untrusted_env_modules(config, allowed):
        package = module.split(".")[0]
        raise ConfigError(
            f"{path}.id={node['id']} would import {module}, and a run folder is not trusted to; "
            f"--allow {package} on the command line trusts it (from Python allow=['{package}'])"
        )


def packages_to_allow(config: dict[str, Any], allowed: Iterable[str]) -> list[str]:
    """What a command line must trust to evaluate or resume a run of this config: also what its env ids import."""
    allowed = list(allowed)
    modules = [module.split(".")[0] for _, _, module in _untrusted_env_modules(config, allowed)]
    return list(dict.fromkeys([*allowed, *modules]))


def _untrusted_env_modules(config: Any, allowed: Iterable[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each target whose id imports a module that is not trusted: its path, its node and the module."""
    trusted = ("hsw.env", *allowed, *trusted_packages())
    for path, node in walk_targets(config):
        module, colon, _ = str(node.get("id", "")).partition(":")
        if colon and not inside(module, trusted):
            yield path, node, module


def inside(name: str, packages: Iterable[str]) -> bool:
    """Whether a dotted name is one of these packages, or in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def _registered(name: str) -> Any:
    """The target of that name which hsw itself vouches for, or None."""
    if name in _named_in_conf():
        return _locate(name)
    module, _, last = name.rpartition(".")
    if last in _LISTED.get(module, "").split():
        return getattr(importlib.import_module(module), last, None)
    exports = _exports()
    if name in exports:
        return exports[name]
    if module in exports and inspect.isclass(exports[module]) and last.startswith("create_"):
        factory = getattr(exports[module], last, None)
        return factory if inspect.ismethod(factory) else None
    return None


@functools.cache
def _exports() -> dict[str, Any]:
    """What the rooms export, by its name there and by its own."""
    found: dict[str, Any] = {}
    for room in _ROOMS:
        try:
            module = importlib.import_module(room)
        except ModuleNotFoundError as error:
            if error.name != room:
                raise
            continue
        for name in getattr(module, "__all__", None) or _defined_in(module):
            exported = getattr(module, name)
            if not name.startswith("_") and (inspect.isclass(exported) or inspect.isfunction(exported)):
                found[f"{room}.{name}"] = found[f"{exported.__module__}.{exported.__qualname__}"] = exported
    return found


def _defined_in(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]


@functools.cache
def _named_in_conf() -> frozenset[str]:
    """Every _target_ in the YAMLs of hsw's own conf/, but for what they tell Hydra."""
    found: set[str] = set()
    for path in conf_folder().rglob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            content.pop("hydra", None)
            found |= {node["_target_"] for _, node in walk_targets(content)}
    return frozenset(name for name in found if isinstance(name, str) and inside(name, ("hsw",)))


def _locate(name: str) -> Any:
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise ConfigError(f"_target_={name} needs {error.name}, which is not installed") from error
            continue
        except Exception as error:  # whatever a module of somebody's does when it is imported
            from hsw.env.place import config_error  # torch's second

            raise config_error(f"_target_={name} cannot be imported:", error) from error
        try:
            for part in parts[split:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    raise ConfigError(f"_target_={name} does not exist")
