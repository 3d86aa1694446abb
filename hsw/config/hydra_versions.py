"""What differs between the versions of Hydra that hsw runs with: 1.3, and 1.4, which asks which targets may run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsw.config.targets import walk_targets

_WHITELIST: Any = getattr(hydra.utils, "execution_whitelist", None)  # 1.4's
VERSION_BASE: dict[str, Any] = {} if _WHITELIST else {"version_base": "1.3"}  # 1.4 has one behaviour, 1.3 two


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Make a function known to interpolations; OmegaConf 2.4 has another name for that."""
    legacy = "replace" not in inspect.signature(OmegaConf.register_resolver).parameters  # 2.3's, for other resolvers
    register: Any = OmegaConf.register_new_resolver if legacy else OmegaConf.register_resolver
    register(name, resolver, replace=True)


def trusting(packages: Iterable[str]) -> AbstractContextManager[Any]:
    """Within this context Hydra may run what these packages, hsw and Python's logging define."""
    names = ("hsw", "logging", *packages)
    return _WHITELIST([f"{name}.*" for name in names]) if _WHITELIST else nullcontext()


def instantiate(node: DictConfig | ListConfig, **options: Any) -> Any:
    """hydra.utils.instantiate, of a node whose every target resolve_target has let pass.

    Args:
        node: Checked.
        options: Hydra's own, such as _partial_.
    """
    if _WHITELIST:
        names = {inner["_target_"] for _, inner in walk_targets(OmegaConf.to_container(node, resolve=True))}
        packages = {f"{name.split('.')[0]}.*" for name in names}  # a class may be defined elsewhere in its package
        options["_execution_whitelist_"] = [*names, *packages]
    return hydra.utils.instantiate(node, **options)
